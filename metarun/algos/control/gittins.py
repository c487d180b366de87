from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt, Lt
from numpy.typing import NDArray
from torch import Tensor

from metarun.algos.control.bandit_rules import BanditRule
from metarun.core.control import Control

LEVELS = np.linspace(0, 1, 401)
"""Steady payments that an arm is compared with."""

AHEAD = 200
"""Pulls beyond the last that are looked ahead; after them an arm pays its mean for ever."""


class Gittins(BanditRule):
    """Learns nothing: pulls the arm of the greatest Gittins index, optimal for an endless game of discounted rewards.

    The index of an arm is the steady payment that is worth as much as the best way of pulling the arm for a while and
    then taking the payment. It is found on a grid of payments. For a game of n pulls it is no optimum; the discount
    stands for how long the game goes on.

    Args:
        control: from the source.
        discount: of a pull.
    Reference: Gittins. Bandit Processes and Dynamic Allocation Indices. JRSS B 1979; calibration as in Gittins,
        Glazebrook, Weber. Multi-armed Bandit Allocation Indices. 2011. Section 8.4.
    """

    def __init__(self, control: Control, discount: Annotated[float, Gt(0), Lt(1)]) -> None:
        super().__init__(control)
        self.table = torch.from_numpy(find_indices(control.episodes + 2, discount))

    def index(self, counts: Tensor, u: Tensor) -> Tensor:
        successes, failures = counts.long().unbind(-1)
        return self.table[successes, failures]


def find_indices(most: int, discount: float) -> NDArray[np.float64]:
    """Return the indices of arms with Beta(s, f) posteriors, [s, f] for s + f <= most."""
    table = np.zeros((most + 1, most + 1))
    end = most + AHEAD
    steady = LEVELS[:, None] / (1 - discount)  # [G, 1]
    value = np.maximum(steady, np.arange(end + 1) / end / (1 - discount))  # of s in 0..end, [G, end + 1]
    for count in range(end - 1, 0, -1):
        s = np.arange(count + 1)
        p = s / count
        pulled = p * (1 + discount * value[:, 1:]) + (1 - p) * discount * value[:, :-1]
        if count <= most:
            table[s, count - s] = _find_crossing(pulled - steady)
        value = np.maximum(steady, pulled)
    return table


def _find_crossing(gain: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the payment at which the gain of pulling [G, S], which falls with the payment, reaches 0."""
    above = np.clip((gain > 0).sum(0), 1, len(LEVELS) - 1)  # how many payments are worth less than a pull
    columns = np.arange(gain.shape[1])
    high, low = gain[above - 1, columns], gain[above, columns]
    share = np.clip(high / np.maximum(high - low, 1e-12), 0, 1)
    crossing: NDArray[np.float64] = LEVELS[above - 1] + share * (LEVELS[above] - LEVELS[above - 1])
    return crossing
