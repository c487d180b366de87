from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from metarun.core.control import Control
from metarun.core.ranges import PositiveFloat, PositiveInt
from metarun.core.tasks import EpisodePlan
from metarun.data.environments import SimulatedTasks, Simulation, Stream
from metarun.data.navigation import Moves

CORNERS = ((-2.0, -2.0), (2.0, -2.0), (-2.0, 2.0), (2.0, 2.0))
WAY = 2 * math.sqrt(2)
"""From the middle to a corner."""

Reward = Literal["sparse", "potential", "dense"]


class Corners(SimulatedTasks):
    """A point on the plane, one of whose four corners (+-2, +-2) is the goal. The observation is where it is.

    A sparse reward is 0 around the start, and wherever another corner is nearer than the goal; elsewhere it is how much
    nearer to the goal the point has come. So the point learns which corner it is only by going there. Since nothing is
    charged outside, who crosses the border to the goal's side again and again is paid each time, and the sum has no
    bound: a return above 2.9 tells of such loops. The reward `potential` is as sparse, and takes back what it paid: the
    sum of an episode is how much nearer than the start the point is at its end, if no other corner is nearer. Episodes
    start within 0.2 of (0, 0) along each axis and have no end of their own.

    Args:
        plan, device: from the runner.
        reward: `sparse`, `potential`, or `dense` for minus the distance to the goal.
        radius: the sparse reward is 0 where |x| + |y| is below it.
        stride: longest move along an axis.
        length: steps of an episode.
        episodes: episodes that a learner has before each step of adaptation.
    Reference: Rothfuss et al. ProMP. ICLR 2019. arXiv:1810.06784, section 6.2; `sparse` as in its code. Potentials: Ng,
        Harada, Russell. Policy Invariance under Reward Transformations. ICML 1999.
    """

    kinds = ("control", "plane")
    numbers = 1

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        reward: Reward,
        radius: PositiveFloat,
        stride: PositiveFloat,
        length: PositiveInt,
        episodes: PositiveInt,
    ) -> None:
        self.pays, self.radius, self.stride = reward, radius, stride
        sizes: dict[str, str | float | None] = {"radius": None if reward == "dense" else radius, "stride": stride}
        sizes |= {"reward": reward} if reward == "potential" else {}
        super().__init__(plan, device, Control(2, 2, False, length, episodes, stride), sizes)

    def simulate(self, stream: Stream) -> Simulation:
        corner = (4 * stream.draw(self.numbers)[:, 0]).astype(int)
        goal = torch.tensor(CORNERS, dtype=torch.get_default_dtype(), device=self.device)[corner]
        moves = CornerMoves(self.control, stream, {"goal": goal}, self.device)
        moves.stride, moves.radius, moves.pays = self.stride, self.radius, self.pays
        return moves


class CornerMoves(Moves):
    """Moves that pay as `pays` says when they approach the corner `goal` [B, 2]."""

    numbers = 2
    radius: float
    pays: Reward

    def begin(self, n: int, u: Tensor) -> Tensor:
        self.place = 0.4 * u - 0.2
        return self.place

    def move(self, actions: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        place, reward, done = super().move(actions, u)
        return place, reward, torch.zeros_like(done)

    def reward(self, before: Tensor, distance: Tensor) -> Tensor:
        if self.pays == "dense":
            return -distance
        away = (before - self.goal[:, None]).norm(dim=-1)
        now = self._counts(self.place, distance)
        if self.pays == "sparse":
            return torch.where(now, away - distance, 0.0)
        return torch.where(now, WAY - distance, 0.0) - torch.where(self._counts(before, away), WAY - away, 0.0)

    def _counts(self, place: Tensor, distance: Tensor) -> Tensor:
        """Return whether places [B, R, 2], so far from the goal, are away from the start and nearest to the goal."""
        least = (place[..., None, :] - place.new_tensor(CORNERS)).norm(dim=-1).amin(-1)
        counts: Tensor = (place.abs().sum(-1) >= self.radius) & (distance <= least + 1e-6)
        return counts
