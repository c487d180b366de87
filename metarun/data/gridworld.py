from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from metarun.core.control import Control
from metarun.core.ranges import PositiveInt
from metarun.core.tasks import EpisodePlan
from metarun.data.environments import SimulatedTasks, Simulation, Stream

MOVES = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))
"""Stay, up, right, down, left."""


class Gridworld(SimulatedTasks):
    """A square of cells, one of which is the goal, which is not shown. The observation is the cell, in -1..1 each way.

    Each episode starts in a corner cell; the goal is none of the four cells there. A step pays 1 on the goal, else
    -0.1.

    Args:
        plan, device: from the runner.
        cells: cells along a side, >= 3.
        length: steps of an episode.
        episodes: episodes that a learner has.
    Reference: Zintgraf et al. VariBAD. ICLR 2020. arXiv:1910.08348, section 5.1.
    """

    kinds = ("control", "grid")
    numbers = 1

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        cells: Annotated[int, Ge(3)],
        length: PositiveInt,
        episodes: PositiveInt,
    ) -> None:
        self.cells = cells
        self.goals = [(x, y) for x in range(cells) for y in range(cells) if x > 1 or y > 1]
        super().__init__(plan, device, Control(2, len(MOVES), True, length, episodes), {"cells": cells})

    def simulate(self, stream: Stream) -> Simulation:
        drawn = (stream.draw(self.numbers)[:, 0] * len(self.goals)).astype(int)
        goal = torch.tensor(self.goals, device=self.device)[drawn]
        cells = CellMoves(self.control, stream, {"goal": goal}, self.device)
        cells.cells = self.cells
        return cells


class CellMoves(Simulation):
    """Moves between cells; `goal` [B, 2] pays. `cell` [B, R, 2] is where an episode is."""

    cells: int
    cell: Tensor

    def begin(self, n: int, u: Tensor) -> Tensor:
        self.cell = torch.zeros(self.n_tasks, n, 2, dtype=torch.int64, device=self.device)
        self.moves = torch.tensor(MOVES, device=self.device)
        return self._observe(u.dtype)

    def move(self, actions: Tensor, u: Tensor) -> tuple[Tensor, Tensor, bool]:
        self.cell = (self.cell + self.moves[actions]).clamp(0, self.cells - 1)
        there = (self.cell == self.goal[:, None]).all(-1)
        return self._observe(u.dtype), torch.where(there, 1.0, -0.1).to(u.dtype), False

    def _observe(self, dtype: torch.dtype) -> Tensor:
        return self.cell.to(dtype) * (2 / (self.cells - 1)) - 1
