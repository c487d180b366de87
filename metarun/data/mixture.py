from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from metarun.core.episodes import Floats
from metarun.core.ranges import Interval, NonNegativeFloat
from metarun.core.tasks import EpisodePlan
from metarun.data.functions import FunctionTasks, read_interval, stretch, to_normal

FAMILIES = ("sine", "line", "quadratic", "cubic")


class Mixture(FunctionTasks):
    """Functions of four families, equally often: a sin(w x) + b, lines, quadratics and cubics.

    The ranges are those of HSML's code, which adds b outside of the sine.

    Args:
        plan, device: from the runner.
        x: least and greatest input.
        noise: standard deviation of the noise that is added to every y, >= 0.
    Reference: Yao, Wei, Huang, Li. Hierarchically Structured Meta-learning. ICML 2019. arXiv:1905.05301, section 5.1.
    """

    numbers = 5
    point_numbers = 2

    def __init__(self, plan: EpisodePlan, device: torch.device, x: Interval, noise: NonNegativeFloat) -> None:
        self.x, self.noise = read_interval("x", x), noise
        super().__init__(plan, device, {"x": self.x, "noise": noise})

    def points(self, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        x, y = stretch(v[:, 0], *self.x), np.empty_like(v[:, 0])  # [B, P]
        families = choose_family(u)
        for number in range(len(FAMILIES)):
            here = families == number
            y[here] = _compute(number, u[here, 1:], x[here])
        return x, y + self.noise * to_normal(v[:, 1])

    def find_families(self, split: str, indices: NDArray[np.int64]) -> list[str]:
        """Name the families of the tasks with the numbers `indices` [B]."""
        return [FAMILIES[number] for number in choose_family(self._draw_numbers(split, indices))]


def choose_family(u: Floats) -> NDArray[np.int64]:
    """Return the number of each task's family, by the first of its random numbers [B, ...]."""
    return (u[:, 0] * len(FAMILIES)).astype(np.int64)


def _compute(family: int, u: Floats, x: Floats) -> Floats:
    """Compute the values [B, P] of functions that u [B, 4] defines, at x [B, P]."""
    if family == 0:
        a, w, b = stretch(u[:, :1], 0.1, 5), stretch(u[:, 1:2], 0.8, 1.2), stretch(u[:, 2:3], 0, 2 * np.pi)
        wave: Floats = a * np.sin(w * x) + b
        return wave
    ends = {1: (3, 3), 2: (0.2, 2, 3), 3: (0.1, 0.2, 2, 3)}[family]  # of x^d down to x^0
    value = np.zeros_like(x)
    for place, end in enumerate(ends):
        value = value * x + stretch(u[:, place : place + 1], -end, end)
    return value
