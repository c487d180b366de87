from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from metarun.core.control import Control
from metarun.core.ranges import PositiveFloat, PositiveInt
from metarun.core.tasks import EpisodePlan
from metarun.data.environments import SimulatedTasks, Simulation, Stream
from metarun.data.navigation import Moves

CORNERS = ((-2.0, -2.0), (2.0, -2.0), (-2.0, 2.0), (2.0, 2.0))


class Corners(SimulatedTasks):
    """A point on the plane, one of whose four corners (+-2, +-2) is the goal. The observation is where it is.

    A sparse reward is 0 around the start, and wherever another corner is nearer than the goal; elsewhere it is how much
    nearer to the goal the point has come. So the point learns which corner it is only by going there. Episodes start
    within 0.2 of (0, 0) along each axis and have no end of their own.

    Args:
        plan, device: from the runner.
        reward: `sparse`, or `dense` for minus the distance to the goal.
        radius: the sparse reward is 0 where |x| + |y| is below it.
        stride: longest move along an axis.
        length: steps of an episode.
        episodes: episodes that a learner has before each step of adaptation.
    Reference: Rothfuss et al. ProMP. ICLR 2019. arXiv:1810.06784, section 6.2; rewards as in its code.
    """

    kinds = ("control", "plane")
    numbers = 1

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        reward: Literal["sparse", "dense"],
        radius: PositiveFloat,
        stride: PositiveFloat,
        length: PositiveInt,
        episodes: PositiveInt,
    ) -> None:
        self.radius, self.stride = radius if reward == "sparse" else None, stride
        sizes = {"radius": self.radius, "stride": stride}
        super().__init__(plan, device, Control(2, 2, False, length, episodes, stride), sizes)

    def simulate(self, stream: Stream) -> Simulation:
        corner = (4 * stream.draw(self.numbers)[:, 0]).astype(int)
        goal = torch.tensor(CORNERS, dtype=torch.get_default_dtype(), device=self.device)[corner]
        moves = CornerMoves(self.control, stream, {"goal": goal}, self.device)
        moves.stride, moves.radius = self.stride, self.radius
        return moves


class CornerMoves(Moves):
    """Moves that pay when they approach the corner `goal` [B, 2]; `radius` None: that pay minus the distance to it."""

    numbers = 2
    radius: float | None

    def begin(self, n: int, u: Tensor) -> Tensor:
        self.place = 0.4 * u - 0.2
        return self.place

    def move(self, actions: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        place, reward, done = super().move(actions, u)
        return place, reward, torch.zeros_like(done)

    def reward(self, before: Tensor, distance: Tensor) -> Tensor:
        if self.radius is None:
            return -distance
        nearer = (before - self.goal[:, None]).norm(dim=-1) - distance
        corners = self.place.new_tensor(CORNERS)
        least = (self.place[..., None, :] - corners).norm(dim=-1).amin(-1)
        counts = (self.place.abs().sum(-1) >= self.radius) & (distance <= least + 1e-6)
        return torch.where(counts, nearer, 0.0)
