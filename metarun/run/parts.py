"""The parts of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from metarun.algos.base.learner import Learner
from metarun.core.tasks import TaskSource
from metarun.run.team import Group


@dataclass
class Parts:
    """The learner, source, optimizers and schedules of a run, with its device, folder and processes."""

    learner: Learner
    source: TaskSource
    optims: dict[str, Optimizer]
    schedules: list[LRScheduler]
    device: torch.device
    folder: Path
    group: Group = field(default_factory=Group)
