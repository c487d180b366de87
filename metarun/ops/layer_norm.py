"""Layer normalisation that is right under torch.func and second order.

As for BatchNorm (metarun/ops/norm.py), the second-order gradients of torch's fused kernel under grad(vmap(grad)) are
wrong without an error in torch 2.11 to 2.15. Under a transform, mean and variance are therefore written out; elsewhere
the fused kernel runs. torch's own layers, in networks of one's own, are given these forms (`make_exact`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metarun.ops.context import is_transformed


class LayerNorm(nn.LayerNorm):
    """torch's layer normalisation over the last axes, as many as it was made for: [..., D] -> the same."""

    def forward(self, input: Tensor) -> Tensor:
        if not is_transformed():
            return super().forward(input)
        var, mean = torch.var_mean(input, list(range(-len(self.normalized_shape), 0)), unbiased=False, keepdim=True)
        normalised = (input - mean) * torch.rsqrt(var + self.eps)
        normalised = normalised if self.weight is None else normalised * self.weight
        return normalised if self.bias is None else normalised + self.bias


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


class _InstanceNorm(nn.modules.instancenorm._InstanceNorm):
    """torch's normalisation of each channel of each input: [R, C, ...] -> the same."""

    inputs_alone: int
    """Dimensions of a single input, which has none for R."""

    def forward(self, input: Tensor) -> Tensor:
        if not is_transformed() or self.track_running_stats or input.dim() == self.inputs_alone:
            return super().forward(input)
        var, mean = torch.var_mean(input, list(range(2, input.dim())), unbiased=False, keepdim=True)
        normalised = (input - mean) * torch.rsqrt(var + self.eps)
        if not self.affine:
            return normalised
        weight, bias = (one.reshape(-1, *(1,) * (input.dim() - 2)) for one in (self.weight, self.bias))
        return normalised * weight + bias


class InstanceNorm1d(_InstanceNorm, nn.InstanceNorm1d):
    """Of sequences [R, C, L]."""

    inputs_alone = 2


class InstanceNorm2d(_InstanceNorm, nn.InstanceNorm2d):
    """Of maps [R, C, H, W]."""

    inputs_alone = 3


EXACT = {nn.LayerNorm: LayerNorm, nn.InstanceNorm1d: InstanceNorm1d, nn.InstanceNorm2d: InstanceNorm2d}


def make_exact(module: nn.Module) -> None:
    """Let layers of torch's own classes compute as ours do. Their weights stay, and all numbers outside a transform."""
    for layer in module.modules():
        if type(layer) in EXACT:
            layer.__class__ = EXACT[type(layer)]
