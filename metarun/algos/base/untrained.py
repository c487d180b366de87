"""The base class of methods that learn nothing from task to task: bars that learners are held against."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from metarun.algos.base.learner import Learner
from metarun.core.tasks import Metrics, OptimFactory


class Untrained(Learner):
    """Has no optimizer; an outer step only scores its batch."""

    def build_optims(self, optim: OptimFactory) -> dict[str, Optimizer]:
        return {}

    def meta_step(self, batch: Any, optims: dict[str, Optimizer]) -> Metrics:
        return self.meta_loss(batch)[1]

    def meta_loss(self, batch: Any) -> tuple[Tensor, Metrics]:
        means = {name: score.mean() for name, score in self.evaluate(batch).items()}
        return means["loss"], means
