"""The parts of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from metarun.algos.base.learner import Learner
from metarun.core.tasks import TaskSource
from metarun.run.team import Group


@dataclass
class Parts:
    """The learner, source, optimizers and schedules of a run, with its device, folder and processes.

    `facts` are further fields of results.json, such as the run that the weights come from. Checkpoints keep them, since
    that run may be another one by the time at which this one goes on.
    """

    learner: Learner
    source: TaskSource
    optims: dict[str, Optimizer]
    schedules: list[LRScheduler]
    device: torch.device
    folder: Path
    group: Group = field(default_factory=Group)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def rates(self) -> dict[str, float]:
        """Return the present rate of each optimizer, by the name that it is logged with."""
        return {f"lr_{name}": optim.param_groups[0]["lr"] for name, optim in self.optims.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the states of learner, optimizers and schedules, for a checkpoint."""
        return {
            "learner": self.learner.state_dict(),
            "optims": {name: optim.state_dict() for name, optim in self.optims.items()},
            "schedules": [schedule.state_dict() for schedule in self.schedules],
            "facts": dict(self.facts),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.learner.load_state_dict(state["learner"])
        for name, optim in self.optims.items():
            optim.load_state_dict(state["optims"][name])
        for schedule, saved in zip(self.schedules, state["schedules"], strict=True):
            schedule.load_state_dict(saved)
        self.facts = state.get("facts", self.facts)  # an older checkpoint has none
