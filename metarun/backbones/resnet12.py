from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import nn

from metarun.backbones.maps import MapNetwork, Residual, conv_norm, image_shape
from metarun.core.ranges import CountsWith, NonNegativeFloat, PositiveInt, UpTo
from metarun.ops.noise import DropBlock, Noise
from metarun.ops.pooling import MaxPool2d

NEGATIVE_SLOPE = 0.1
"""Slope of the leaky ReLU below 0."""


class ResNet12(MapNetwork):
    """ResNet-12: four blocks of three 3x3 convolutions with a 1x1 shortcut, each followed by 2x2 max-pooling.

    Two networks have this name. 64-160-320-640 with dropout and DropBlock (Lee 2019) has 12.4 million parameters;
    64-128-256-512 (Mishra 2018 and Oreshkin 2018, in the form of Chen 2021) has 8.0 million. Features are averaged over
    positions. MetaOptNet uses the whole map instead (`pool=false`: 16,000 numbers for an 84x84 image).

    Shapes: x [R, C, H, W] -> features [R, out_features]; feature_map [R, *map_shape].
    Args:
        input_shape: C, H, W.
        bn: where normalisation takes its statistics from, see metarun/ops/norm.py.
        widths: filters of each block.
        drop_rate: share of the output of each block that is dropped in training, in [0, 1): squares behind the last
            two blocks, single numbers behind the others. Inner loops drop nothing, see metarun/ops/noise.py.
        block_size: side of those squares; null means 5, or 2 for images below 64 pixels, as in MetaOptNet on
            mini-ImageNet and CIFAR-FS.
        pool: average the last map over positions, see MapNetwork.
    Reference: Lee, Maji, Ravichandran, Soatto. Meta-Learning with Differentiable Convex Optimization. CVPR 2019.
        arXiv:1904.03758, section 4.1.
        Chen, Liu, Xu, Darrell, Wang. Meta-Baseline. ICCV 2021. arXiv:2003.04390, section 4.1.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        bn: str,
        widths: Sequence[int] = (64, 160, 320, 640),
        drop_rate: NonNegativeFloat = 0.1,
        block_size: Annotated[
            PositiveInt | None, CountsWith("drop_rate"), UpTo("pixels of a side of the last map but one")
        ] = None,
        pool: bool = True,
    ) -> None:
        inputs, height, width = image_shape("ResNet-12", input_shape)
        if min(height, width) < 2 ** len(widths):
            raise ValueError(
                f"{len(widths)} halvings leave nothing of {height}x{width} images; ResNet-12 needs "
                f"{2 ** len(widths)} pixels"
            )
        size = block_size or (5 if min(height, width) >= 64 else 2)
        layers: list[nn.Module] = []
        for block, outputs in enumerate(widths):
            layers += [make_residual_block(inputs, outputs, bn), MaxPool2d(2)]
            if drop_rate:
                layers.append(Noise(DropBlock(drop_rate, size if block >= len(widths) - 2 else 1)))
            inputs, height, width = outputs, height // 2, width // 2
        super().__init__(nn.Sequential(*layers), (inputs, height, width), pool)


def make_residual_block(inputs: int, outputs: int, bn: str) -> Residual:
    """Make a block of three 3x3 convolutions with a 1x1 convolution as shortcut."""
    body = [*conv_norm(inputs, outputs, bn), nn.LeakyReLU(NEGATIVE_SLOPE), *conv_norm(outputs, outputs, bn)]
    body += [nn.LeakyReLU(NEGATIVE_SLOPE), *conv_norm(outputs, outputs, bn)]
    shortcut = nn.Sequential(*conv_norm(inputs, outputs, bn, kernel=1))
    return Residual(nn.Sequential(*body), shortcut, nn.LeakyReLU(NEGATIVE_SLOPE))
