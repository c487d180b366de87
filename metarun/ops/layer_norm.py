"""Layer normalisation that is right under torch.func and second order.

As for BatchNorm (metarun/ops/norm.py), the second-order gradients of torch's fused kernel under grad(vmap(grad)) are
wrong without an error in torch 2.11 to 2.15. Under a transform, mean and variance are therefore written out; elsewhere
the fused kernel runs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metarun.ops.context import is_transformed


class LayerNorm(nn.LayerNorm):
    """torch's layer normalisation over the last axis, [..., D] -> the same."""

    def forward(self, input: Tensor) -> Tensor:
        if not is_transformed():
            return super().forward(input)
        var, mean = torch.var_mean(input, -1, unbiased=False, keepdim=True)
        return (input - mean) * torch.rsqrt(var + self.eps) * self.weight + self.bias


class LayerNorm2d(LayerNorm):
    """The same over the channels of a map, [R, C, H, W] -> the same."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class MapLayerNorm(nn.GroupNorm):
    """Layer normalisation over all numbers of each input, with a weight and a bias for each channel.

    Shapes: [R, C] or [R, C, H, W] -> the same.
    Reference: Ba, Kiros, Hinton. Layer Normalization. 2016. arXiv:1607.06450; of maps as in the code of Finn 2017.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    def forward(self, input: Tensor) -> Tensor:
        if not is_transformed():
            return super().forward(input)
        var, mean = torch.var_mean(input, list(range(1, input.dim())), unbiased=False, keepdim=True)
        weight, bias = (one.reshape(-1, *(1,) * (input.dim() - 2)) for one in (self.weight, self.bias))
        return (input - mean) * torch.rsqrt(var + self.eps) * weight + bias
