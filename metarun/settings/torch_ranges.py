"""Ranges of the settings of torch's own optimizers and schedules, whose constructors name none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict, get_type_hints

from annotated_types import Ge, Gt, Le

from metarun.core.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Share, ShareBelowOne

PositiveShare = Annotated[float, Gt(0), Le(1)]


class OptimizerSettings(TypedDict):
    """Settings of the classes in torch.optim; a class gets those that it has."""

    lr: PositiveFloat
    betas: tuple[ShareBelowOne, ShareBelowOne]
    eps: NonNegativeFloat
    weight_decay: Annotated[float, Ge(0), Le(100)]
    momentum: Share
    dampening: Share
    alpha: ShareBelowOne
    rho: Share
    lr_decay: NonNegativeFloat
    momentum_decay: NonNegativeFloat
    capturable: Literal[False]
    differentiable: Literal[False]


class ScheduleSettings(TypedDict):
    """Settings of the classes in torch.optim.lr_scheduler."""

    T_max: PositiveInt
    T_0: PositiveInt
    T_mult: PositiveInt
    eta_min: NonNegativeFloat
    factor: PositiveShare
    start_factor: PositiveShare
    end_factor: Share
    total_iters: PositiveInt
    step_size: PositiveInt
    gamma: PositiveFloat
    milestones: Sequence[PositiveInt]
    power: NonNegativeFloat
    max_lr: PositiveFloat
    base_lr: NonNegativeFloat
    total_steps: PositiveInt
    epochs: PositiveInt
    steps_per_epoch: PositiveInt
    step_size_up: PositiveInt
    step_size_down: PositiveInt | None
    cooldown: NonNegativeInt
    patience: NonNegativeInt
    last_epoch: Literal[-1]


def find_ranges(module: str) -> Mapping[str, Any]:
    """Return the annotations for a class of torch's in `module`; empty for other modules."""
    if module.startswith("torch.optim.lr_scheduler"):
        return get_type_hints(ScheduleSettings, include_extras=True)
    return get_type_hints(OptimizerSettings, include_extras=True) if module.startswith("torch.optim.") else {}
