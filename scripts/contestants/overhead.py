"""What a run spends on anything but its learner's steps: drawing tasks, reading numbers, logs and checkpoints."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from contestants.ours import learner, noise_source
from contestants.settings import OUTER_LR, Setting
from metarun.core import tuning
from metarun.core.tasks import Batch, Metrics
from metarun.run.interrupt import StopRequest
from metarun.run.offline import OfflineRun
from metarun.run.parts import Parts

SETTING = Setting("overhead", "maml")


def overhead(steps: int) -> dict[str, Any]:
    """The share of the time of `steps` outer steps, and of each, that the learner's step is not.

    Counted are the steps after the first, up to the last one's end: validation and test come after it.
    """
    tuning.keep_memory()
    spans: list[tuple[float, float]] = []
    timed = learner(SETTING)
    plain = timed.meta_step

    def meta_step(batch: Batch, optims: dict[str, torch.optim.Optimizer]) -> Metrics:
        started = time.perf_counter()
        metrics = plain(batch, optims)
        spans.append((started, time.perf_counter()))
        return metrics

    timed.meta_step = meta_step  # type: ignore[method-assign]
    with TemporaryDirectory() as folder:
        optims = {"outer": torch.optim.Adam(timed.parameters(), OUTER_LR)}
        parts = Parts(timed, noise_source(SETTING), optims, [], torch.device("cpu"), Path(folder))
        tasks = {"meta_batch_size": SETTING.tasks, "val_tasks": 20, "test_tasks": 20, "eval_batch_size": 20}
        run = OfflineRun(parts, steps, val_every=steps, checkpoint_every=100, log_every=10, **tasks)
        run.execute([], StopRequest())
    others = [after[0] - before[1] for before, after in itertools.pairwise(spans)]
    shares = [other / (other + end - start) for other, (start, end) in zip(others, spans[1:], strict=True)]
    whole = spans[-1][1] - spans[0][1]
    return {"steps": steps, "share": sum(others) / whole, "shares": shares}
