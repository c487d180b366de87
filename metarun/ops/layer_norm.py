"""Layer normalisation that is right under torch.func and second order.

As of BatchNorm (metarun/ops/norm.py): in torch 2.11 to 2.15 the fused kernel's second-order gradients under
grad(vmap(grad)) are wrong without an error. There the mean and variance are written out; elsewhere the fused kernel
serves.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metarun.ops.context import transformed


class LayerNorm(nn.LayerNorm):
    """torch's layer normalisation over the last axis, [..., D] -> the same."""

    def forward(self, input: Tensor) -> Tensor:
        if not transformed():
            return super().forward(input)
        var, mean = torch.var_mean(input, -1, unbiased=False, keepdim=True)
        return (input - mean) * torch.rsqrt(var + self.eps) * self.weight + self.bias


class LayerNorm2d(LayerNorm):
    """The same over the channels of a map, [R, C, H, W] -> the same."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)
