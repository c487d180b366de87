from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metarun.backbones.maps import conv_norm, image_shape
from metarun.core.ranges import NonNegativeFloat
from metarun.ops.noise import Noise, check_rate
from metarun.ops.pooling import MaxPool2d

NEGATIVE_SLOPE = 0.1
"""Slope of the leaky ReLU below 0."""


class R2D2Network(nn.Module):
    """R2D2's network: blocks of 3x3 convolution, 2x2 max-pooling and leaky ReLU; the last two are the features.

    A linear classifier in closed form can use more numbers than the last map has. The maps of the last two blocks are
    flattened and put side by side, and in training both lose numbers by dropout.

    Shapes: x [R, C, H, W] -> features [R, out_features].
    Args:
        input_shape: C, H, W.
        bn: where normalisation takes its statistics from, see metarun/ops/norm.py.
        widths: filters of each block.
        drop_rate: share of the numbers of each of the last two maps that is dropped in training, in [0, 1). Inner loops
            drop nothing, see metarun/ops/noise.py.
    Raises: ValueError for images that are too small.
    Reference: Bertinetto, Henriques, Torr, Vedaldi. Meta-learning with differentiable closed-form solvers. ICLR 2019.
        arXiv:1805.08136, section 4.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        bn: str,
        widths: Sequence[int] = (64, 64, 64, 64),
        drop_rate: NonNegativeFloat = 0.4,
    ) -> None:
        super().__init__()
        inputs, height, width = image_shape("R2D2's network", input_shape)
        check_rate(drop_rate)
        if min(height, width) < 2 ** len(widths):
            raise ValueError(
                f"{len(widths)} halvings leave nothing of {height}x{width} images; use larger ones or fewer "
                "backbone.widths"
            )
        blocks: list[nn.Module] = []
        for outputs in widths:
            noise = [Noise(nn.Dropout(drop_rate))] * bool(drop_rate and len(blocks) >= len(widths) - 2)
            layers = [*conv_norm(inputs, outputs, bn), MaxPool2d(2), nn.LeakyReLU(NEGATIVE_SLOPE), *noise]
            blocks.append(nn.Sequential(*layers))
            inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        sizes = [filters * (height >> block) * (width >> block) for block, filters in enumerate(widths, 1)]
        self.out_features = sum(sizes[-2:])

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(torch.flatten(x, 1))
        return torch.cat(maps[-2:], 1)
