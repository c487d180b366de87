"""Learning-rate schedules that torch does not have in the form a run needs."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LambdaLR

from metarun.core.ranges import PositiveFloat, PositiveInt


def cosine_restarts(
    optimizer: Optimizer, steps: int, cycles: PositiveInt, eta_min: float
) -> CosineAnnealingWarmRestarts:
    """Return a schedule of `cycles` equal half cosines over the run's `steps`, each from the full rate to `eta_min`.

    Reference: Loshchilov, Hutter. SGDR. ICLR 2017. arXiv:1608.03983, equation 5.
    """
    return CosineAnnealingWarmRestarts(optimizer, max(1, math.ceil(steps / cycles)), eta_min=eta_min)


def milestones(optimizer: Optimizer, at: Sequence[PositiveInt], factors: Sequence[PositiveFloat]) -> LambdaLR:
    """Return a schedule that multiplies the learning rate by factors[i] from outer step at[i] on.

    Raises: ValueError unless `at` rises and has as many numbers as `factors`.
    """
    steps, levels = list(at), [1.0, *factors]
    if len(steps) + 1 != len(levels) or steps != sorted(set(steps)):
        raise ValueError(
            f"optim.schedule.at={steps} must rise, with a factor for each step; optim.schedule.factors={levels[1:]}"
        )
    return LambdaLR(optimizer, lambda step: levels[bisect.bisect_right(steps, step)])
