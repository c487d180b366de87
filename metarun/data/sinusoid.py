from __future__ import annotations

import numpy as np
import torch

from metarun.core.episodes import Floats
from metarun.core.ranges import Interval
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
        told: inputs are (x, a, p) instead of x: a network that is told what others infer from a support set, the
            paper's oracle.
    Reference: Finn, Abbeel, Levine. MAML. ICML 2017. arXiv:1703.03400, section 5.1.
    """

    numbers = 2

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        amplitude: Interval,
        phase: Interval,
        x: Interval,
        told: bool = False,
    ) -> None:
        self.amplitude, self.phase, self.x = (
            read_interval("amplitude", amplitude),
            read_interval("phase", phase),
            read_interval("x", x),
        )
        self.told = 2 if told else 0
        own = {"amplitude": self.amplitude, "phase": self.phase, "x": self.x}
        super().__init__(plan, device, own | ({"told": True} if told else {}))

    def points(self, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        a, p = np.split(self._find_wave(u), 2, axis=1)  # [B, 1]
        x = stretch(v[:, 0], *self.x)  # [B, P]
        return x, a * np.sin(x - p)

    def tell(self, u: Floats) -> Floats:
        return self._find_wave(u)[:, : self.told]

    def _find_wave(self, u: Floats) -> Floats:
        """Return amplitude and phase of each wave [B, 2]."""
        return np.concatenate([stretch(u[:, :1], *self.amplitude), stretch(u[:, 1:], *self.phase)], 1)
