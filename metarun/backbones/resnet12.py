from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from metarun.backbones.maps import MapNetwork, Residual, image_shape, normalised
from metarun.core.ranges import NonNegativeFloat, PositiveInt
from metarun.ops.noise import DropBlock, Noise

SLOPE = 0.1
"""Of the leaky ReLU below 0."""


class ResNet12(MapNetwork):
    """ResNet-12: four blocks of three 3x3 convolutions beside a 1x1 convolution, each followed by 2x2 max-pooling.

    Two networks go by this name. 64-160-320-640 with dropout and DropBlock (Lee 2019) has 12.4 million parameters;
    64-128-256-512 (Mishra 2018 and Oreshkin 2018, in the form of Chen 2021) has 8.0 million. Features are averaged
    over positions; MetaOptNet's are the whole map (`pool=false`: 16,000 numbers of an 84x84 image).

    Shapes: x [R, C, H, W] -> features [R, out_features]; feature_map [R, *map_shape].
    Args:
        input_shape: C, H, W.
        bn: which statistics normalise, see metarun/ops/norm.py.
        widths: filters of each block.
        drop_rate: share dropped behind each block in training, in [0, 1): single numbers but behind the last two
            blocks, squares there. Inner loops drop nothing, see metarun/ops/noise.py.
        block_size: side of those squares; null: 5, and 2 below 64 pixels, as MetaOptNet on mini-ImageNet and CIFAR-FS.
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
        block_size: PositiveInt | None = None,
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
            layers += [residual_block(inputs, outputs, bn), nn.MaxPool2d(2)]
            if drop_rate:
                layers.append(Noise(DropBlock(drop_rate, size if block >= len(widths) - 2 else 1)))
            inputs, height, width = outputs, height // 2, width // 2
        super().__init__(nn.Sequential(*layers), (inputs, height, width), pool)


def residual_block(inputs: int, outputs: int, bn: str) -> Residual:
    """Three 3x3 convolutions beside a 1x1 convolution."""
    body = [*normalised(inputs, outputs, bn), nn.LeakyReLU(SLOPE), *normalised(outputs, outputs, bn)]
    body += [nn.LeakyReLU(SLOPE), *normalised(outputs, outputs, bn)]
    shortcut = nn.Sequential(*normalised(inputs, outputs, bn, kernel=1))
    return Residual(nn.Sequential(*body), shortcut, nn.LeakyReLU(SLOPE))
