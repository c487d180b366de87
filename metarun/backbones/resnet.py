from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from metarun.backbones.maps import MapNetwork, Residual, conv_norm, image_shape
from metarun.core.ranges import PositiveInt, check_choice
from metarun.ops.pooling import MaxPool2d

Stem = Literal["auto", "small", "large"]

LARGE_STEM_PIXELS = 128
"""From this length of the shorter side on, `stem=auto` is `large`."""


class ResNet(MapNetwork):
    """ResNet-10 and ResNet-18 as the few-shot literature builds them, four stages of blocks of two convolutions.

    The stem suits the size of the images. `large` is ImageNet's, for 224 pixels: a 7x7 convolution with stride 2, then
    3x3 max-pooling with stride 2 (Chen 2019). `small` is a 3x3 convolution without stride, for 84 pixels or fewer: the
    large stem would shrink such images too much (Wang 2019, section 4.1).

    Shapes: x [R, C, H, W] -> features [R, out_features]; feature_map [R, *map_shape].
    Args:
        input_shape: C, H, W.
        bn: where normalisation takes its statistics from, see metarun/ops/norm.py.
        widths: filters of each stage; each stage but the first halves height and width.
        blocks: number of blocks in each stage; 1 makes ResNet-10, 2 make ResNet-18.
        stem: `small`, `large`, or `auto`, which chooses by the size of the images.
        pool: average the last map over positions, see MapNetwork.
    Reference: Chen, Liu, Kira, Wang, Huang. A Closer Look at Few-shot Classification. ICLR 2019. arXiv:1904.04232.
        Wang, Chao, Weinberger, van der Maaten. SimpleShot. 2019. arXiv:1911.04623.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        bn: str,
        widths: Sequence[int] = (64, 128, 256, 512),
        blocks: PositiveInt = 1,
        stem: Stem = "auto",
        pool: bool = True,
    ) -> None:
        channels, height, width = image_shape("ResNet", input_shape)
        check_choice("backbone.stem", stem, Stem)
        large = stem == "large" or (stem == "auto" and min(height, width) >= LARGE_STEM_PIXELS)
        layers = [*conv_norm(channels, widths[0], bn, 7 if large else 3, 2 if large else 1), nn.ReLU()]
        layers += [MaxPool2d(3, 2, padding=1)] if large else []
        inputs = widths[0]
        for stage, outputs in enumerate(widths):
            for block in range(blocks):
                layers.append(make_basic_block(inputs, outputs, bn, stride=2 if stage and not block else 1))
                inputs = outputs
        halvings = len(widths) - 1 + 2 * large
        height, width = (-(-side // 2**halvings) for side in (height, width))
        super().__init__(nn.Sequential(*layers), (inputs, height, width), pool)


def make_basic_block(inputs: int, outputs: int, bn: str, stride: int) -> Residual:
    """Make a block of two 3x3 convolutions. Its shortcut is a 1x1 convolution if the shape changes, else the input."""
    body = [*conv_norm(inputs, outputs, bn, stride=stride), nn.ReLU(), *conv_norm(outputs, outputs, bn)]
    same = inputs == outputs and stride == 1
    shortcut = nn.Identity() if same else nn.Sequential(*conv_norm(inputs, outputs, bn, 1, stride))
    return Residual(nn.Sequential(*body), shortcut, nn.ReLU())
