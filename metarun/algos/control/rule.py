"""The base class of rules for acting."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from metarun.algos.base.untrained import Untrained
from metarun.algos.control.environment_learner import EnvironmentLearner
from metarun.core.control import Control, Environments


class Rule(Untrained, EnvironmentLearner):
    """Acts by a rule. `return` is the sum of rewards over the episodes of a task.

    Args:
        control: from the source.
    """

    def __init__(self, control: Control) -> None:
        super().__init__()
        self.control = control

    @torch.no_grad()
    def evaluate(self, batch: Any) -> dict[str, Tensor]:
        found = self.rewards(batch).sum(1)
        return {"loss": -found, "return": found}

    @abstractmethod
    def rewards(self, batch: Environments) -> Tensor:
        """Return the rewards of all steps of the episodes of each task, [B, nT]."""
