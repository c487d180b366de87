"""Compute a grouped convolution and its two gradients as one product of matrices for each group, by a table of patches.

Grouped convolutions on a GPU take one group after the other, or use kernels made for groups of one channel. Batched
products of matrices are what a GPU does best. A table has a row for each number of a filter and a column for each
position of the filters, so it takes kh * kw times the memory of the images. On a CPU torch's own operations are faster.

Shapes: G groups; images x [R, G * C, H, W], filters w [G * O, C, kh, kw], outputs y [R, G * O, h, w], gx, gw and gy as
x, w and y. In memory the results have the rows second, as the products make them: [G * O, R, h, w].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LARGE_TABLE_NUMBERS = 1 << 22
"""Numbers of a table from which one pass over it less is worth two more kernels (an estimate)."""


def convolve(x: Tensor, w: Tensor, stride: Sequence[int], padding: Sequence[int], groups: int) -> Tensor:
    """Return y for x and w."""
    rows, h, width = len(x), *_output_size(x.shape, w.shape, stride, padding)
    y = torch.bmm(_reshape_filters(w, groups), _make_table(x, w.shape, stride, padding, groups))  # [G, O, R * h * w]
    return y.view(len(w), rows, h, width).transpose(0, 1)


def filter_gradient(
    gy: Tensor, x: Tensor, stride: Sequence[int], padding: Sequence[int], groups: int, shape: Sequence[int]
) -> Tensor:
    """Return gw, of the given shape, for gy and x."""
    table = _make_table(x, shape, stride, padding, groups)
    return torch.bmm(_group_outputs(gy, groups), table.transpose(1, 2)).view(tuple(shape))


def image_gradient(
    gy: Tensor, w: Tensor, stride: Sequence[int], padding: Sequence[int], groups: int, shape: Sequence[int]
) -> Tensor:
    """Return gx, of the given shape, for gy and w."""
    if is_faster_turned(shape, w.shape, stride, padding, groups):
        return turned_image_gradient(gy, w, padding, groups)
    return folded_image_gradient(gy, w, stride, padding, groups, shape)


def is_faster_turned(
    images: Sequence[int], filters: Sequence[int], stride: Sequence[int], padding: Sequence[int], groups: int
) -> bool:
    """Return whether a table of gy makes gx faster: if the table of x is large and that of gy not much larger."""
    outputs, inputs = filters[0] // groups, filters[1]
    return (
        max(stride) == 1
        and outputs <= 2 * inputs
        and count_table_numbers(images, filters, stride, padding) >= LARGE_TABLE_NUMBERS
    )


def folded_image_gradient(
    gy: Tensor, w: Tensor, stride: Sequence[int], padding: Sequence[int], groups: int, shape: Sequence[int]
) -> Tensor:
    """Return gx as sums over the gradient of the table of x, with three kernels."""
    (rows, channels, *sides), (kh, kw) = shape, w.shape[2:]
    table = torch.bmm(
        _reshape_filters(w, groups).transpose(1, 2), _group_outputs(gy, groups)
    )  # [G, C * kh * kw, R * h * w]
    parts = table.view(channels, kh * kw, rows, -1).transpose(1, 2)  # [G * C, R, kh * kw, h * w]
    parts = parts.reshape(1, channels * rows * kh * kw, -1)
    gx = F.fold(parts, tuple(sides), (kh, kw), 1, tuple(padding), tuple(stride))
    return gx.view(channels, rows, *sides).transpose(0, 1)


def turned_image_gradient(gy: Tensor, w: Tensor, padding: Sequence[int], groups: int) -> Tensor:
    """Return gx, for stride 1, as gy convolved with the turned filters, with five kernels."""
    outputs, inputs, *sides = w.shape
    turned = w.view(groups, outputs // groups, inputs, *sides).transpose(1, 2).flip(3, 4)
    turned = turned.reshape(groups * inputs, outputs // groups, *sides)
    around = [side - 1 - edge for side, edge in zip(sides, padding, strict=True)]
    return convolve(gy, turned, (1, 1), around, groups)


def count_table_numbers(
    images: Sequence[int], filters: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> int:
    """Count the numbers in the table for images and filters of these shapes."""
    h, width = _output_size(images, filters, stride, padding)
    return images[0] * images[1] * filters[2] * filters[3] * h * width


def _make_table(
    x: Tensor, filters: Sequence[int], stride: Sequence[int], padding: Sequence[int], groups: int
) -> Tensor:
    """Make the table [G, C * kh * kw, R * h * w] of the pixel under each number of a filter at each position."""
    views = _pad(x, padding).unfold(2, filters[2], stride[0]).unfold(3, filters[3], stride[1])
    rows, channels, *places_and_sides = range(6)  # of [R, G * C, h, w, kh, kw]
    table = views.permute(channels, *places_and_sides[2:], rows, *places_and_sides[:2])
    return table.reshape(groups, filters[1] * filters[2] * filters[3], -1)


def _pad(x: Tensor, padding: Sequence[int]) -> Tensor:
    """Pad x with zeros. F.pad runs a kernel for the zeros and one for x; F.unfold by 1x1 patches runs a single one."""
    if max(padding) == 0:
        return x
    (rows, channels, height, width), (down, right) = x.shape, padding
    turn = not x.is_contiguous()  # rows second in memory, as in the results of this module
    images = x.transpose(0, 1).reshape(1, -1, height, width) if turn else x.view(1, -1, height, width)
    padded = F.unfold(images, 1, padding=(down, right))
    first, second = (channels, rows) if turn else (rows, channels)
    padded = padded.view(first, second, height + 2 * down, width + 2 * right)
    return padded.transpose(0, 1) if turn else padded


def _reshape_filters(w: Tensor, groups: int) -> Tensor:
    """Reshape filters w into matrices [G, O, C * kh * kw]."""
    return w.reshape(groups, len(w) // groups, -1)


def _group_outputs(gy: Tensor, groups: int) -> Tensor:
    """Reshape gy into matrices [G, O, R * h * w]: a view if the rows are second in memory."""
    return gy.transpose(0, 1).reshape(groups, gy.shape[1] // groups, -1)


def _output_size(
    images: Sequence[int], filters: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> tuple[int, int]:
    """Return h and w of the outputs for filters and images of these shapes."""
    down, right = (
        (side + 2 * edge - kernel) // step + 1
        for side, kernel, step, edge in zip(images[2:], filters[2:], stride, padding, strict=True)
    )
    return down, right
