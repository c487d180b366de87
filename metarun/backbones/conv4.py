from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from metarun.core.ranges import NonNegativeInt, PositiveInt, check_choice
from metarun.ops.convolution import Conv2d
from metarun.ops.first_block import run_first_block, runs_in_pieces
from metarun.ops.norm import batch_norm
from metarun.ops.pooling import MaxPool2d

Downsample = Literal["pool", "stride"]


class Conv4(nn.Module):
    """Four blocks of 3x3 convolution, batch normalisation and ReLU: few-shot learning's standard network.

    `downsample=pool` adds 2x2 max-pooling to each block (Vinyals 2016, Snell 2017, MAML on mini-ImageNet). The pooling
    comes before the ReLU: numbers and gradients are the same, and the ReLU sees a quarter of the pixels.
    `downsample=stride` uses stride-2 convolutions instead and averages the last map over positions (MAML's code on
    Omniglot). Convolutions have a bias only with `bn=none`; the normalisation behind them would cancel it.

    Shapes: x [R, C, H, W] -> features [R, out_features], made from feature_map [R, *map_shape].
    Args:
        input_shape: C, H, W.
        bn: where normalisation takes its statistics from, see metarun/ops/norm.py.
        hidden: filters of each layer.
        downsample: `pool` or `stride`.
        layers: number of blocks.
        halvings: number of blocks, from the first on, that halve height and width; null means all (RelationNet: 2).
    Reference: Vinyals et al. Matching Networks for One Shot Learning. NeurIPS 2016. arXiv:1606.04080, section 4.1.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        bn: str,
        hidden: PositiveInt = 64,
        downsample: Downsample = "pool",
        layers: PositiveInt = 4,
        halvings: NonNegativeInt | None = None,
    ) -> None:
        super().__init__()
        check_choice("backbone.downsample", downsample, Downsample)
        if len(input_shape) != 3:
            raise ValueError(f"Conv4 needs images, and the inputs are numbers of shape {input_shape}; set backbone=mlp")
        channels, height, width = input_shape
        halvings = layers if halvings is None else halvings
        if halvings > layers:
            raise ValueError(f"backbone.halvings={halvings} is above backbone.layers={layers}")
        blocks: list[nn.Module] = []
        for layer in range(layers):
            halve = layer < halvings
            stride = 2 if halve and downsample == "stride" else 1
            inputs = channels if layer == 0 else hidden
            convolution = Conv2d(inputs, hidden, 3, stride=stride, padding=1, bias=bn == "none")
            blocks += [convolution, batch_norm(hidden, bn)]
            blocks += [MaxPool2d(2)] if halve and downsample == "pool" else []
            blocks.append(nn.ReLU())
            if halve:
                height, width = (height // 2, width // 2) if downsample == "pool" else (-(-height // 2), -(-width // 2))
        if height * width == 0:
            raise ValueError(
                f"{halvings} halvings leave nothing of {input_shape[1]}x{input_shape[2]} images; "
                "use larger ones or backbone=conv4_strided"
            )
        self.blocks = nn.Sequential(*blocks)
        self.average = downsample == "stride"
        self.map_shape = (hidden, height, width)
        self.out_features = hidden if self.average else hidden * height * width

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
