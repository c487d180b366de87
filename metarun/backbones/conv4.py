from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from metarun.core.ranges import NonNegativeInt, PositiveInt, ShareBelowOne, check_choice
from metarun.ops.convolution import Conv2d
from metarun.ops.first_block import run_first_block, runs_in_pieces
from metarun.ops.norm import batch_norm, needs_bias
from metarun.ops.pooling import MaxPool2d

Downsample = Literal["pool", "stride"]


class Conv4(nn.Module):
    """Four blocks of 3x3 convolution, batch normalisation and ReLU: few-shot learning's standard network.

    `downsample=pool` adds 2x2 max-pooling to each block (Vinyals 2016, Snell 2017, MAML on mini-ImageNet). The pooling
    comes before the ReLU: numbers and gradients are the same, and the ReLU sees a quarter of the pixels.
    `downsample=stride` uses stride-2 convolutions instead and averages the last map over positions (MAML's code on
    Omniglot). Convolutions have a bias only where no BatchNorm behind them would cancel it.

    Shapes: x [R, C, H, W] -> features [R, out_features], made from feature_map [R, *map_shape].
    Args:
        input_shape: C, H, W.
        bn: where normalisation takes its statistics from, see metarun/ops/norm.py.
        hidden: filters of each layer: a number, or a list of one for each.
        downsample: `pool` or `stride`.
        layers: number of blocks.
        halvings: number of blocks, from the first on, that halve height and width; null means all (RelationNet: 2).
        slope: of the leaky ReLU below 0, in [0, 1); 0 is the plain ReLU.
    Reference: Vinyals et al. Matching Networks for One Shot Learning. NeurIPS 2016. arXiv:1606.04080, section 4.1.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        bn: str,
        hidden: PositiveInt | Sequence[PositiveInt] = 64,
        downsample: Downsample = "pool",
        layers: PositiveInt = 4,
        halvings: NonNegativeInt | None = None,
        slope: ShareBelowOne = 0.0,
    ) -> None:
        super().__init__()
        check_choice("backbone.downsample", downsample, Downsample)
        if len(input_shape) != 3:
            raise ValueError(f"Conv4 needs images, and the inputs are numbers of shape {input_shape}; set backbone=mlp")
        channels, height, width = input_shape
        halvings = layers if halvings is None else halvings
        if halvings > layers:
            raise ValueError(f"backbone.halvings={halvings} is above backbone.layers={layers}")
        widths = [hidden] * layers if isinstance(hidden, int) else list(hidden)
        if len(widths) != layers:
            raise ValueError(f"backbone.hidden={widths} has {len(widths)} numbers, and backbone.layers is {layers}")
        blocks: list[nn.Module] = []
        for layer, (inputs, outputs) in enumerate(zip([channels, *widths], widths, strict=False)):
            halve = layer < halvings
            stride = 2 if halve and downsample == "stride" else 1
            convolution = Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=needs_bias(bn))
            blocks += [convolution, batch_norm(outputs, bn)]
            blocks += [MaxPool2d(2)] if halve and downsample == "pool" else []
            blocks.append(nn.LeakyReLU(slope) if slope else nn.ReLU())
            if halve:
                height, width = (height // 2, width // 2) if downsample == "pool" else (-(-height // 2), -(-width // 2))
        if height * width == 0:
            raise ValueError(
                f"{halvings} halvings leave nothing of {input_shape[1]}x{input_shape[2]} images; "
                "use larger ones or backbone=conv4_strided"
            )
        self.blocks = nn.Sequential(*blocks)
        self.average = downsample == "stride"
        self.map_shape = (widths[-1], height, width)
        self.out_features = widths[-1] if self.average else widths[-1] * height * width

    def feature_map(self, x: Tensor) -> Tensor:
        layers = tuple(self.blocks)
        if runs_in_pieces(first := layers[:3], x):
            x, layers = run_first_block(x, *first), layers[3:]
        for layer in layers:
            x = layer(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        features = self.feature_map(x)
        return features.mean((2, 3)) if self.average else torch.flatten(features, 1)
