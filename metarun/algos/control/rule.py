"""The base class of rules for acting that learn nothing from task to task: bars that learners are held against."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from metarun.algos.control.environment_learner import EnvironmentLearner
from metarun.core.control import Environments
from metarun.core.tasks import Metrics, OptimFactory


class Rule(EnvironmentLearner):
    """Acts by a rule. `return` is the sum of rewards over the episodes of a task."""

    def build_optims(self, optim: OptimFactory) -> dict[str, Optimizer]:
        return {}

    def meta_step(self, batch: Environments, optims: dict[str, Optimizer]) -> Metrics:
        return self.meta_loss(batch)[1]

    def meta_loss(self, batch: Environments) -> tuple[Tensor, Metrics]:
        means = {name: score.mean() for name, score in self.evaluate(batch).items()}
        return means["loss"], means

    @torch.no_grad()
    def evaluate(self, batch: Any) -> dict[str, Tensor]:
        found = self.rewards(batch).sum(1)
        return {"loss": -found, "return": found}

    @abstractmethod
    def rewards(self, batch: Environments) -> Tensor:
        """Return the rewards of all steps of the episodes of each task, [B, nT]."""


def choose(index: Tensor, ties: Tensor) -> Tensor:
    """Return the arm of the greatest index [B, k]; of several, the one with the greatest of the numbers `ties`."""
    best = index >= index.amax(-1, keepdim=True) - 1e-9
    return torch.where(best, ties, -1.0).argmax(-1)
