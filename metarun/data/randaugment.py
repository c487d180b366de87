"""RandAugment for many images at once: torchvision handles all images together that drew the same operation."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

MAGNITUDE = 0.3
"""Strength of each operation, as a share of the greatest; torchvision's default is 9 of 30."""


def randaugment(x: Tensor, uniform: Tensor) -> Tensor:
    """Apply two of `OPERATIONS`, drawn for each image separately, to images [R, 1 or 3, H, W] uint8.

    Args:
        uniform: numbers in 0..1, [R, 4], on the CPU; they choose each operation and its sign, twice.
    Reference: Cubuk, Zoph, Shlens, Le. RandAugment. NeurIPS 2020. arXiv:1909.13719; operations and ranges are those of
        torchvision.transforms.v2.RandAugment, which draws once for a whole batch.
    """
    names = list(OPERATIONS)
    for numbers in (uniform[:, :2], uniform[:, 2:]):
        operation, back = (numbers[:, 0] * len(names)).long().tolist(), (numbers[:, 1] < 0.5).tolist()  # [R] each
        drawn = [(names[n], -MAGNITUDE if b else MAGNITUDE) for n, b in zip(operation, back, strict=True)]
        x = apply_drawn(x, drawn, OPERATIONS)
    return x


def apply_drawn(
    x: Tensor, drawn: Sequence[tuple[str, float]], operations: Mapping[str, Callable[[Tensor, float], Tensor]]
) -> Tensor:
    """Apply to each image of [R, C, H, W] uint8 the operation that `drawn` [R] names, with its magnitude in -1..1."""
    images: dict[tuple[str, float], list[int]] = defaultdict(list)
    for image, one in enumerate(drawn):
        images[one].append(image)
    out = torch.empty_like(x)
    for (name, magnitude), numbers in images.items():
        rows = torch.tensor(numbers, device=x.device)
        out[rows] = operations[name](x[rows], magnitude)
    return out


def _shear(x: Tensor, across: float, down: float) -> Tensor:
    angles = [math.degrees(math.atan(0.3 * part)) for part in (across, down)]
    out: Tensor = v2.affine(x, angle=0.0, translate=[0, 0], scale=1.0, shear=angles, center=[0, 0])
    return out


def _translate(x: Tensor, across: float, down: float) -> Tensor:
    sides = [int(150 / 331 * part * side) for part, side in ((across, x.shape[-1]), (down, x.shape[-2]))]
    out: Tensor = v2.affine(x, angle=0.0, translate=sides, scale=1.0, shear=[0.0, 0.0])
    return out


OPERATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "Identity": lambda x, m: x,
    "ShearX": lambda x, m: _shear(x, m, 0),
    "ShearY": lambda x, m: _shear(x, 0, m),
    "TranslateX": lambda x, m: _translate(x, m, 0),
    "TranslateY": lambda x, m: _translate(x, 0, m),
    "Rotate": lambda x, m: v2.rotate(x, 30 * m),
    "Brightness": lambda x, m: v2.adjust_brightness(x, 1 + 0.9 * m),
    "Color": lambda x, m: v2.adjust_saturation(x, 1 + 0.9 * m),
    "Contrast": lambda x, m: v2.adjust_contrast(x, 1 + 0.9 * m),
    "Sharpness": lambda x, m: v2.adjust_sharpness(x, 1 + 0.9 * m),
    "Posterize": lambda x, m: v2.posterize(x, round(8 - 4 * abs(m))),
    "Solarize": lambda x, m: v2.solarize(x, 255 * (1 - abs(m))),
    "AutoContrast": lambda x, m: v2.autocontrast(x),
    "Equalize": lambda x, m: v2.equalize(x),
}
"""The operations under torchvision's names: functions of images [R, C, H, W] uint8 and a magnitude in -1..1."""
