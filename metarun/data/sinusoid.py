from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from metarun.core.episodes import Floats
from metarun.core.tasks import EpisodePlan
from metarun.data.functions import FunctionTasks, read_interval, stretch


class Sinusoid(FunctionTasks):
    """Sine waves a sin(x - p) of random amplitude a and phase p: the regression problem of the MAML paper.

    The ranges are those of the paper; its code subtracts the phase.

    Args:
        plan, device: from the runner.
        amplitude: least and greatest a.
        phase: least and greatest p, in radians.
        x: least and greatest input, in radians.
    Reference: Finn, Abbeel, Levine. MAML. ICML 2017. arXiv:1703.03400, section 5.1.
    """

    numbers = 2

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        amplitude: Sequence[float],
        phase: Sequence[float],
        x: Sequence[float],
    ) -> None:
        self.amplitude, self.phase, self.x = (
            read_interval("amplitude", amplitude),
            read_interval("phase", phase),
            read_interval("x", x),
        )
        super().__init__(plan, device, {"amplitude": self.amplitude, "phase": self.phase, "x": self.x})

    def points(self, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        a, p = stretch(u[:, :1], *self.amplitude), stretch(u[:, 1:], *self.phase)  # [B, 1]
        x = stretch(v[:, 0], *self.x)  # [B, P]
        return x, a * np.sin(x - p)
