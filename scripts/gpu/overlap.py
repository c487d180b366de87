"""How much faster several runs are in one process, each on a stream of its own, than one after the other.

python scripts/gpu/overlap.py --device cuda --out overlap.txt

The kernels of a small network leave most of a GPU idle. Learners of several seeds could share it if one process
launched their outer steps in turn. This measures what that would gain, before anybody builds it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from contestants.ours import Metarun
from contestants.settings import Setting

TOGETHER = (1, 2, 4, 8)
"""Learners at once."""

WARM = 4


def main(arguments: Sequence[str]) -> None:
    """Print outer steps a second of all learners together, and write them to a file."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--device", default="cuda", help="by torch's name; default cuda")
    made.add_argument("--tasks", type=int, default=32, help="of a step of MAML; default 32")
    made.add_argument("--timed", type=int, default=30, help="steps of each learner; default 30")
    made.add_argument("--out", type=Path, required=True)
    asked = made.parse_args(arguments)
    settings = [
        Setting("maml-5w1s", "maml", tasks=asked.tasks, device=asked.device),
        Setting("protonet-20w1s-q5", "protonet", n_way=20, n_query=5, tasks=min(4, asked.tasks), device=asked.device),
    ]
    with asked.out.open("w") as file:
        for setting in settings:
            found = {count: measure(setting, count, asked.timed) for count in TOGETHER}
            said = ", ".join(f"{count}: {rate:.0f} ({rate / found[1]:.2f} x)" for count, rate in found.items())
            print(line := f"{setting.said}; outer steps a second of so many learners together: {said}")
            file.write(f"{line}\n")


def measure(setting: Setting, count: int, timed: int) -> float:
    """Return the outer steps a second that `count` learners make together."""
    on_gpu = setting.device != "cpu"
    learners = [Metarun(setting) for _ in range(count)]
    streams = [torch.cuda.stream(torch.cuda.Stream()) if on_gpu else nullcontext() for _ in learners]

    def step_all(times: int) -> None:
        for _ in range(times):
            for learner, stream in zip(learners, streams, strict=True):
                with stream:
                    learner.step()
        if on_gpu:
            torch.cuda.synchronize()

    step_all(WARM)
    started = time.perf_counter()
    step_all(timed)
    return count * timed / (time.perf_counter() - started)


if __name__ == "__main__":
    main(sys.argv[1:])
