from __future__ import annotations

import torch
from torch import Tensor, nn

from metarun.norm import BatchNorm


class Conv4(nn.Module):
    """Four blocks of 3x3 convolution, batch normalisation and ReLU: few-shot learning's standard network.

    `downsample=pool` follows each block by 2x2 max-pooling (Vinyals 2016, Snell 2017, MAML on mini-ImageNet);
    `downsample=stride` uses stride-2 convolutions instead and averages what is left over positions (MAML's code
    on Omniglot). Convolutions have no bias: the normalisation behind them would cancel it.

    Shapes: x [R, C, H, W] -> features [R, out_features].
    Args:
        input_shape: C, H, W.
        bn: which statistics normalise, see metarun/norm.py.
        hidden: filters of each layer.
        downsample: `pool` or `stride`.
        layers: number of blocks.
    Reference: Vinyals et al. Matching Networks for One Shot Learning. NeurIPS 2016. arXiv:1606.04080, section 4.1.
    """

    def __init__(
        self, input_shape: tuple[int, ...], bn: str, hidden: int = 64, downsample: str = "pool", layers: int = 4
    ) -> None:
        super().__init__()
        if downsample not in ("pool", "stride"):
            raise ValueError(f"backbone.downsample={downsample} is not one of pool, stride")
        channels, height, width = input_shape
        blocks: list[nn.Module] = []
        for layer in range(layers):
            stride = 2 if downsample == "stride" else 1
            inputs = channels if layer == 0 else hidden
            blocks += [nn.Conv2d(inputs, hidden, 3, stride=stride, padding=1, bias=False), BatchNorm(hidden, bn)]
            blocks += [nn.ReLU(), nn.MaxPool2d(2)] if downsample == "pool" else [nn.ReLU()]
        self.blocks = nn.Sequential(*blocks)
        self.average = downsample == "stride"
        positions = 1 if self.average else (height >> layers) * (width >> layers)
        if positions == 0:
            raise ValueError(
                f"{layers} halvings leave nothing of {height}x{width} images; use larger ones or backbone=conv4_strided"
            )
        self.out_features = hidden * positions

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.blocks(x)
        return features.mean((2, 3)) if self.average else torch.flatten(features, 1)
