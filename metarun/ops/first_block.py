"""A network's first block on images of one channel: convolution, batch normalisation and pooling, piece by piece.

The convolution makes 64 numbers of each pixel, which are then read for their mean and variance, to be normalised, and
to be pooled to a quarter. But an output is w p, of a filter w and the patch p of the image under it. So over a batch
its mean is w E[p] and its variance w Cov[p] w, of nine numbers a pixel; the normalisation becomes a part of the filters
and a shift, and pieces of the batch are convolved and pooled while they are in the processor's cache. Conv-4 is 1.2
times as fast so on a CPU, in training and without. (Of three channels the patches cost what they save.)
"""

from __future__ import annotations

from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarun.ops import context
from metarun.ops.convolution import Conv2d, channels_last
from metarun.ops.norm import BatchNorm

PIECE = 1 << 20
"""Outputs of the convolution that are made and pooled at once, 4 MB in float32; up to two pieces gain nothing."""

Block = tuple[Conv2d, BatchNorm, nn.MaxPool2d]


def in_pieces(layers: tuple[nn.Module, ...], x: Tensor) -> TypeGuard[Block]:
    """Whether these layers are such a block, and `first_block` is faster for images x [R, C, H, W] here and now."""
    if x.device.type != "cpu" or x.shape[1] != 1 or x.requires_grad or context.transformed():
        return False
    convolution, normalise, pool = layers
    return (
        isinstance(convolution, Conv2d)
        and convolution.bias is None
        and convolution.stride == (1, 1)
        and convolution.kernel_size == tuple(2 * int(edge) + 1 for edge in convolution.padding)
        and x.numel() * convolution.out_channels > 2 * PIECE
        and isinstance(normalise, BatchNorm)
        and isinstance(pool, nn.MaxPool2d)
    )


def first_block(x: Tensor, convolution: Conv2d, normalise: BatchNorm, pool: nn.MaxPool2d) -> Tensor:
    """`pool(normalise(convolution(x)))`; x [R, 1, H, W] -> [R, O, h, w]."""
    filters = convolution.weight.flatten(1)  # [O, P] for patches of P numbers

    def moments(rows: int | None) -> tuple[Tensor, Tensor]:
        patches = _patches(x[:rows, 0], *convolution.kernel_size)
        mean = patches.mean(1)
        centred = patches - mean[:, None]
        covariance = centred @ centred.T / patches.shape[1]
        var = ((filters @ covariance) * filters).sum(1).clamp_min(0)  # which rounding may leave below
        return var, filters @ mean

    scale, shift = normalise.scale_and_shift(moments, x.numel())
    scaled = convolution.weight * scale[:, None, None, None]  # before pooling: a negative factor turns it round
    at_once = max(1, PIECE // (x[0].numel() * len(filters)))
    pieces = torch.split(channels_last(x), at_once)
    pooled = torch.cat([pool(F.conv2d(piece, scaled, padding=convolution.padding)) for piece in pieces])
    return pooled + shift[:, None, None]


def _patches(x: Tensor, down: int, right: int) -> Tensor:
    """What each place of filters so large sees of images x [R, H, W] and zeros around: [down * right, R * H * W]."""
    height, width = x.shape[1:]
    x = F.pad(x, (right // 2, right // 2, down // 2, down // 2))
    # F.unfold takes five times as long
    views = [x[:, i : i + height, j : j + width] for i in range(down) for j in range(right)]
    return torch.stack(views).flatten(1)
