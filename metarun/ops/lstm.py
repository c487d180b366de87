"""Long short-term memory whose gates are written out, since torch's cell has no vmap rule."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LSTMCell(nn.Module):
    """One step of long short-term memory.

    Shapes: x [R, inputs], hidden [R, recurrent], cell [R, units] -> output and cell [R, units].
    Args:
        inputs: size of x.
        recurrent: size of what comes from the step before; `units`, or more where something joins its output.
        units: size of output and cell.
    """

    def __init__(self, inputs: int, recurrent: int, units: int) -> None:
        super().__init__()
        self.gates = nn.Linear(inputs + recurrent, 4 * units)

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        put, keep, new, show = self.gates(torch.cat([x, hidden], dim=-1)).chunk(4, dim=-1)
        cell = keep.sigmoid() * cell + put.sigmoid() * new.tanh()
        return show.sigmoid() * cell.tanh(), cell
