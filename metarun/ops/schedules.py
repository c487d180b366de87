"""Learning-rate schedules that torch has not in the form a run needs."""

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
    """So many equal half cosines, each from the learning rate to `eta_min`, over the run's `steps`.

    Reference: Loshchilov, Hutter. SGDR. ICLR 2017. arXiv:1608.03983, equation 5.
    """
    return CosineAnnealingWarmRestarts(optimizer, max(1, math.ceil(steps / cycles)), eta_min=eta_min)


def milestones(optimizer: Optimizer, at: Sequence[PositiveInt], factors: Sequence[PositiveFloat]) -> LambdaLR:
    """The learning rate times the i-th of `factors` from outer step at[i] on, and as it is before at[0].

    Raises: ValueError unless `at` rises and has as many numbers as `factors`.
    """
    steps, levels = list(at), [1.0, *factors]
    if len(steps) + 1 != len(levels) or steps != sorted(set(steps)):
        raise ValueError(
            f"optim.schedule.at={steps} must rise, with a factor for each step; optim.schedule.factors={levels[1:]}"
        )
    return LambdaLR(optimizer, lambda step: levels[bisect.bisect_right(steps, step)])
