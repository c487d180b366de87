from __future__ import annotations

import numpy as np
import torch

from metarun.core.episodes import Floats
from metarun.core.ranges import Interval, NonNegativeFloat
from metarun.core.tasks import EpisodePlan
from metarun.data.functions import FunctionTasks, read_interval, stretch, to_normal


class Harmonic(FunctionTasks):
    """Sums of a sine wave and another of twice its frequency: a sin(w x + p) + b sin(2 w x + q).

    The amplitudes a and b are standard normal, the phases p and q uniform. The inputs of a task are normal with
    standard deviation 1, and each task has its own centre.

    Args:
        plan, device: from the runner.
        frequency: least and greatest w, in radians per unit of x.
        centre: least and greatest centre of a task's inputs.
        noise: standard deviation of the noise that is added to every y, >= 0.
    Reference: Lacoste et al. Uncertainty in Multitask Transfer Learning. 2018. arXiv:1806.07528.
    """

    numbers = 6
    point_numbers = 2

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        frequency: Interval,
        centre: Interval,
        noise: NonNegativeFloat,
    ) -> None:
        self.frequency, self.centre = read_interval("frequency", frequency), read_interval("centre", centre)
        self.noise = noise
        super().__init__(plan, device, {"frequency": self.frequency, "centre": self.centre, "noise": noise})

    def points(self, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        a, b = to_normal(u[:, 0:1]), to_normal(u[:, 1:2])  # [B, 1]
        p, q = stretch(u[:, 2:3], 0, 2 * np.pi), stretch(u[:, 3:4], 0, 2 * np.pi)
        w = stretch(u[:, 4:5], *self.frequency)
        x = stretch(u[:, 5:6], *self.centre) + to_normal(v[:, 0])  # [B, P]
        return x, a * np.sin(w * x + p) + b * np.sin(2 * w * x + q) + self.noise * to_normal(v[:, 1])
