from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from metarun.core.episodes import Floats
from metarun.core.ranges import NonNegativeFloat
from metarun.core.tasks import EpisodePlan
from metarun.data.functions import FunctionTasks, between, interval, normal


class Harmonic(FunctionTasks):
    """Sums of a sine wave and one of twice its frequency: a sin(w x + p) + b sin(2 w x + q).

    The amplitudes a and b are standard normal, the phases p and q uniform. A task's inputs are normal with standard
    deviation 1 about a centre of its own.

    Args:
        plan, device: from the runner.
        frequency: least and greatest w, in radians a unit of x.
        centre: least and greatest centre of a task's inputs.
        noise: standard deviation of what is added to every y, >= 0.
    Reference: Lacoste et al. Uncertainty in Multitask Transfer Learning. 2018. arXiv:1806.07528.
    """

    numbers = 6
    point_numbers = 2

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        frequency: Sequence[float],
        centre: Sequence[float],
        noise: NonNegativeFloat,
    ) -> None:
        self.frequency, self.centre, self.noise = interval("frequency", frequency), interval("centre", centre), noise
        super().__init__(plan, device, {"frequency": self.frequency, "centre": self.centre, "noise": noise})

    def points(self, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        a, b = normal(u[:, 0:1]), normal(u[:, 1:2])  # [B, 1]
        p, q = between(u[:, 2:3], 0, 2 * np.pi), between(u[:, 3:4], 0, 2 * np.pi)
        w = between(u[:, 4:5], *self.frequency)
        x = between(u[:, 5:6], *self.centre) + normal(v[:, 0])
        return x, a * np.sin(w * x + p) + b * np.sin(2 * w * x + q) + self.noise * normal(v[:, 1])
