"""A grouped convolution and its two gradients as one product of matrices a group, by a table of patches.

A GPU's grouped convolutions take the groups one after the other, or are kernels made for something else (of one channel
a group); batched products are what it does best. A table has a row for each number of a filter and a column for each
place where filters are applied: kh * kw times the memory of the images. Of a CPU torch's own are faster.

Shapes: G groups; images x [R, G * C, H, W], filters w [G * O, C, kh, kw], outputs y [R, G * O, h, w], gx, gw and gy as
x, w and y. What comes out has the rows second in memory, as the products make it: [G * O, R, h, w].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LARGE = 1 << 22
"""Numbers of a table from which passing over it less often is worth two more kernels (an estimate)."""


def convolve(x: Tensor, w: Tensor, stride: Sequence[int], padding: Sequence[int], groups: int) -> Tensor:
    """y of x and w."""
    rows, h, width = len(x), *_places(x.shape, w.shape, stride, padding)
    y = torch.bmm(_matrix(w, groups), _table(x, w.shape, stride, padding, groups))  # [G, O, R * h * w]
    return y.view(len(w), rows, h, width).transpose(0, 1)


def filter_gradient(
    gy: Tensor, x: Tensor, stride: Sequence[int], padding: Sequence[int], groups: int, shape: Sequence[int]
) -> Tensor:
    """gw, of the given shape, of gy and x."""
    table = _table(x, shape, stride, padding, groups)
    return torch.bmm(_by_group(gy, groups), table.transpose(1, 2)).view(tuple(shape))


def image_gradient(
    gy: Tensor, w: Tensor, stride: Sequence[int], padding: Sequence[int], groups: int, shape: Sequence[int]
) -> Tensor:
    """gx, of the given shape, of gy and w."""
    if turning_is_faster(shape, w.shape, stride, padding, groups):
        return turned_image_gradient(gy, w, padding, groups)
    return folded_image_gradient(gy, w, stride, padding, groups, shape)


def turning_is_faster(
    images: Sequence[int], filters: Sequence[int], stride: Sequence[int], padding: Sequence[int], groups: int
) -> bool:
    """Whether gx is best made by a table of gy: where x's is large and that of gy not much larger."""
    outputs, inputs = filters[0] // groups, filters[1]
    return max(stride) == 1 and outputs <= 2 * inputs and table_numbers(images, filters, stride, padding) >= LARGE


def folded_image_gradient(
    gy: Tensor, w: Tensor, stride: Sequence[int], padding: Sequence[int], groups: int, shape: Sequence[int]
) -> Tensor:
    """gx as sums over the gradient of x's table: three kernels."""
    (rows, channels, *sides), (kh, kw) = shape, w.shape[2:]
    table = torch.bmm(_matrix(w, groups).transpose(1, 2), _by_group(gy, groups))  # [G, C * kh * kw, R * h * w]
    parts = table.view(channels, kh * kw, rows, -1).transpose(1, 2)  # [G * C, R, kh * kw, h * w]
    parts = parts.reshape(1, channels * rows * kh * kw, -1)
    gx = F.fold(parts, tuple(sides), (kh, kw), 1, tuple(padding), tuple(stride))
    return gx.view(channels, rows, *sides).transpose(0, 1)


def turned_image_gradient(gy: Tensor, w: Tensor, padding: Sequence[int], groups: int) -> Tensor:
    """gx, of stride 1, as gy convolved with the filters turned round: five kernels."""
    outputs, inputs, *sides = w.shape
    turned = w.view(groups, outputs // groups, inputs, *sides).transpose(1, 2).flip(3, 4)
    turned = turned.reshape(groups * inputs, outputs // groups, *sides)
    around = [side - 1 - edge for side, edge in zip(sides, padding, strict=True)]
    return convolve(gy, turned, (1, 1), around, groups)


def table_numbers(images: Sequence[int], filters: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> int:
    """How many numbers the table of images and filters of these shapes holds."""
    h, width = _places(images, filters, stride, padding)
    return images[0] * images[1] * filters[2] * filters[3] * h * width


def _table(x: Tensor, filters: Sequence[int], stride: Sequence[int], padding: Sequence[int], groups: int) -> Tensor:
    """[G, C * kh * kw, R * h * w]: what stands under each number of a filter at each place."""
    views = _pad(x, padding).unfold(2, filters[2], stride[0]).unfold(3, filters[3], stride[1])
    rows, channels, *places_and_sides = range(6)  # of [R, G * C, h, w, kh, kw]
    table = views.permute(channels, *places_and_sides[2:], rows, *places_and_sides[:2])
    return table.reshape(groups, filters[1] * filters[2] * filters[3], -1)


def _pad(x: Tensor, padding: Sequence[int]) -> Tensor:
    """x in zeros. F.pad takes a kernel for the zeros and one for x; the patches of one number each are a single one."""
    if max(padding) == 0:
        return x
    (rows, channels, height, width), (down, right) = x.shape, padding
    turn = not x.is_contiguous()  # rows second in memory, as this file leaves them; else a copy
    images = x.transpose(0, 1).reshape(1, -1, height, width) if turn else x.view(1, -1, height, width)
    padded = F.unfold(images, 1, padding=(down, right))
    first, second = (channels, rows) if turn else (rows, channels)
    padded = padded.view(first, second, height + 2 * down, width + 2 * right)
    return padded.transpose(0, 1) if turn else padded


def _matrix(w: Tensor, groups: int) -> Tensor:
    """[G, O, C * kh * kw]."""
    return w.reshape(groups, len(w) // groups, -1)


def _by_group(gy: Tensor, groups: int) -> Tensor:
    """[G, O, R * h * w], a view if the rows come second in memory."""
    return gy.transpose(0, 1).reshape(groups, gy.shape[1] // groups, -1)


def _places(
    images: Sequence[int], filters: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> tuple[int, int]:
    """h and w: where filters of this shape are applied to images of this shape."""
    down, right = (
        (side + 2 * edge - kernel) // step + 1
        for side, kernel, step, edge in zip(images[2:], filters[2:], stride, padding, strict=True)
    )
    return down, right
