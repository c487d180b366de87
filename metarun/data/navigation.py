from __future__ import annotations

import torch
from torch import Tensor

from metarun.core.control import Control
from metarun.core.ranges import PositiveFloat, PositiveInt
from metarun.core.tasks import EpisodePlan
from metarun.data.environments import SimulatedTasks, Simulation, Stream
from metarun.data.functions import stretch

NEAR = 0.01
"""An episode ends so near to the goal, along both axes."""


class Navigation(SimulatedTasks):
    """A point on the plane that is to go to a goal, which it is not shown. The observation is where it is.

    It starts at (0, 0), and the goal is drawn from a square around it. An action is a move, cut to `stride` along each
    axis; it pays minus the distance to the goal after it. The episode ends within 0.01 of the goal along both axes.

    Args:
        plan, device: from the runner.
        reach: goals are drawn from [-reach, reach) along each axis.
        stride: longest move along an axis.
        length: steps of an episode.
        episodes: episodes that a learner has before each step of adaptation.
    Reference: Finn, Abbeel, Levine. MAML. ICML 2017. arXiv:1703.03400, section 5.3; sizes as in its code.
    """

    kinds = ("control", "plane")
    numbers = 2

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        reach: PositiveFloat,
        stride: PositiveFloat,
        length: PositiveInt,
        episodes: PositiveInt,
    ) -> None:
        self.reach, self.stride = reach, stride
        sizes = {"reach": reach, "stride": stride}
        super().__init__(plan, device, Control(2, 2, False, length, episodes, stride), sizes)

    def simulate(self, stream: Stream) -> Simulation:
        goal = self.tensor(stretch(stream.draw(self.numbers), -self.reach, self.reach))
        moves = Moves(self.control, stream, {"goal": goal}, self.device)
        moves.stride = self.stride
        return moves


class Moves(Simulation):
    """A point that moves on the plane, and is paid by its distance to `goal` [B, 2].

    Attributes:
        stride: longest move along an axis.
        place: where it is, [B, R, 2].
    """

    stride: float
    place: Tensor

    def begin(self, n: int, u: Tensor) -> Tensor:
        self.place = torch.zeros(self.n_tasks, n, 2, dtype=u.dtype, device=self.device)
        return self.place

    def move(self, actions: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        before = self.place
        # where an episode is over the point stays, so that its path can be drawn
        self.place = torch.where(self.over[..., None], before, before + actions.clamp(-self.stride, self.stride))
        away = self.place - self.goal[:, None]
        return self.place, self.reward(before, away.norm(dim=-1)), (away.abs() < NEAR).all(-1)

    def reward(self, before: Tensor, distance: Tensor) -> Tensor:
        """Return the rewards [B, R] of moves from places `before` [B, R, 2] to where the goal is `distance` away."""
        return -distance
