from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from metarun.core.control import Control
from metarun.core.ranges import PositiveInt
from metarun.core.tasks import EpisodePlan
from metarun.data.environments import SimulatedTasks, Simulation, Stream


class Bandits(SimulatedTasks):
    """Bandits of k arms. An arm pays 1 with a probability drawn uniformly from [0, 1) for each task, else 0.

    An episode is one pull, and shows nothing: its observation is always 1.

    Args:
        plan, device: from the runner.
        arms: number of arms, k, >= 2.
        episodes: pulls that a learner has, n.
    Reference: Duan et al. RL2. 2016. arXiv:1611.02779, section 3.1.
    """

    kinds = ("control", "bandits")

    def __init__(
        self, plan: EpisodePlan, device: torch.device, arms: Annotated[int, Ge(2)], episodes: PositiveInt
    ) -> None:
        self.numbers = arms
        super().__init__(plan, device, Control(1, arms, True, 1, episodes), {"arms": arms})

    def simulate(self, stream: Stream) -> Simulation:
        return Pulls(self.control, stream, {"means": self.tensor(stream.draw(self.numbers))}, self.device)


class Pulls(Simulation):
    """Bandits whose arms pay with probability `means` [B, k]."""

    numbers = 1

    def begin(self, n: int, u: Tensor) -> Tensor:
        return u.new_ones(self.n_tasks, n, 1)

    def move(self, actions: Tensor, u: Tensor) -> tuple[Tensor, Tensor, bool]:
        pays = u[..., 0] < self.means.gather(1, actions)
        return u.new_ones(*actions.shape, 1), pays.to(u.dtype), True
