from __future__ import annotations

import torch
from torch import Tensor

from metarun.algos.control.rule import Rule
from metarun.core.control import Control, Environments


class RandomActions(Rule):
    """Learns nothing: every action is as likely as every other. The least that a learner must beat.

    Args:
        control: from the source.
    """

    def __init__(self, control: Control) -> None:
        if not control.discrete:
            raise ValueError("algo=random_actions chooses among discrete actions, and those of the data are not")
        super().__init__(control)

    def rewards(self, batch: Environments) -> Tensor:
        rewards = []
        for episode in range(self.control.episodes):
            batch.reset(1, episode)
            actions = (batch.draw(1, episode, 1)[..., 0] * self.control.actions).long()  # [B, 1, T]
            rewards += [batch.step(actions[..., step]).reward for step in range(self.control.length)]
        return torch.cat(rewards, 1)
