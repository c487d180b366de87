"""Learning-rate schedules that torch has not in the form a run needs."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from metarun.core.ranges import PositiveInt


def cosine_restarts(
    optimizer: Optimizer, steps: int, cycles: PositiveInt, eta_min: float
) -> CosineAnnealingWarmRestarts:
    """So many equal half cosines, each from the learning rate to `eta_min`, over the run's `steps`.

    Reference: Loshchilov, Hutter. SGDR. ICLR 2017. arXiv:1608.03983, equation 5.
    """
    return CosineAnnealingWarmRestarts(optimizer, max(1, math.ceil(steps / cycles)), eta_min=eta_min)
