"""Which operations and kernels three outer steps of MAML and of ProtoNet spend their time in, by torch's profiler.

python scripts/gpu/kernels.py --device cuda --out profile.txt
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from contestants.ours import Metarun
from contestants.settings import Setting
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

STEPS, WARM, ROWS = 3, 3, 40


def main(arguments: Sequence[str]) -> None:
    """Print a summary of each setting, and write the tables to a file."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--device", default="cuda", help="by torch's name; default cuda")
    made.add_argument("--tasks", type=int, default=32, help="of a step of MAML; default 32")
    made.add_argument("--out", type=Path, required=True, help="file of the tables")
    made.add_argument("--timed", type=int, default=20, help="steps timed before three are profiled; default 20")
    asked = made.parse_args(arguments)
    settings = [
        Setting("maml-5w1s", "maml", tasks=asked.tasks, device=asked.device),
        Setting("protonet-20w1s-q5", "protonet", n_way=20, n_query=5, tasks=4, device=asked.device),
    ]
    with asked.out.open("w") as file:
        for setting in settings:
            said, table = profile_steps(setting, asked.timed)
            print(said)
            file.write(f"{said}\n{table}\n\n")
            file.flush()


def profile_steps(setting: Setting, timed: int) -> tuple[str, str]:
    """Return a summary of the setting's steps, and the table of its most expensive kernels or operations."""
    on_gpu = setting.device != "cpu"
    one = Metarun(setting)
    for _ in range(WARM):
        one.step()
    started = _now(on_gpu)
    for _ in range(timed):
        one.step()
    usual = (_now(on_gpu) - started) / timed
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu]
    with profile(activities=activities, acc_events=True) as profiler:
        for _ in range(STEPS):
            one.step()
        _now(on_gpu)
    averages = profiler.key_averages()
    if not on_gpu:
        said = f"{setting.said}: {1e3 * usual:.2f} ms a step"
        return said, averages.table(sort_by="self_cpu_time_total", row_limit=ROWS, max_name_column_width=90)
    kernels: list[Any] = [event for event in averages if event.device_type == DeviceType.CUDA]
    count = sum(event.count for event in kernels) / STEPS
    busy = sum(event.self_device_time_total for event in kernels) / STEPS / 1e3
    said = f"{setting.said}: {1e3 * usual:.2f} ms a step, of which {count:.0f} kernels take {busy:.2f} ms when profiled"
    return said, averages.table(sort_by="self_cuda_time_total", row_limit=ROWS, max_name_column_width=90)


def _now(on_gpu: bool) -> float:
    """Seconds on the clock, once the device has done what it was given."""
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main(sys.argv[1:])
