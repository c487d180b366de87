"""AutoAugment for many images at once, by torchvision's table of pairs of operations."""

from __future__ import annotations

from torch import Tensor
from torchvision.transforms.v2 import AutoAugment, AutoAugmentPolicy
from torchvision.transforms.v2 import functional as v2

from metarun.data import randaugment

Step = tuple[str, float, int | None]
"""An operation, the probability that it is applied, and its magnitude in 0..9."""

PAIRS: list[tuple[Step, Step]] = AutoAugment(AutoAugmentPolicy.IMAGENET)._policies
"""The 25 pairs that were found on ImageNet."""

OPERATIONS = randaugment.OPERATIONS | {"Invert": lambda x, m: v2.invert(x)}


def autoaugment(x: Tensor, uniform: Tensor) -> Tensor:
    """Apply one of `PAIRS`, drawn for each image separately, to images [R, 1 or 3, H, W] uint8.

    Args:
        uniform: numbers in 0..1, [R, 5], on the CPU: they choose the pair, whether its first operation is applied and
            its sign, and the same of the second.
    Reference: Cubuk, Zoph, Mane, Vasudevan, Le. AutoAugment. CVPR 2019. arXiv:1805.09501, table 9.
    """
    pairs = [PAIRS[number] for number in (uniform[:, 0] * len(PAIRS)).long().tolist()]
    for place in (0, 1):
        numbers = uniform[:, 1 + 2 * place : 3 + 2 * place].tolist()
        drawn = [_draw(pair[place], *two) for pair, two in zip(pairs, numbers, strict=True)]
        x = randaugment.apply_drawn(x, drawn, OPERATIONS)
    return x


def _draw(step: Step, apply: float, sign: float) -> tuple[str, float]:
    """Return the operation of a step with its magnitude as a share of the greatest."""
    name, probability, magnitude = step
    if apply >= probability:
        return "Identity", 0.0
    return name, (magnitude or 0) / 9 * (-1 if sign < 0.5 else 1)
