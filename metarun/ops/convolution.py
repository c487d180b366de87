"""Convolutions that cost no more than they must when they run for all tasks at once and are differentiated twice.

A convolution is bilinear in images and filters, and so are its two gradients; the derivatives of each of the three
are the other two. torch's own second derivative is made of slower operations, under vmap one task after the other.

How each of the three is computed is a matter of the device: see `way`.

Shapes: images x [R, C, H, W], filters w [O, C / groups, kh, kw], outputs y [R, O, h, w], gx, gw and gy as x, w and y.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function

from metarun.ops import context, patches
from metarun.ops.context import Way
from metarun.ops.task_axis import from_channels, from_rows, into_channels, into_first, into_rows

ROWS = 24
"""Images of a task from which a CPU is faster with the channels of all tasks side by side and last in memory, where a
convolution strides; filters that the tasks share are then one copy a task. (Pooling under vmap would undo the order.)
"""

TABLE_BYTES = 4 << 30
"""Largest table of patches that a GPU makes."""

LEAST_FILTERS = 8
"""Of a group, for products of matrices to be worth their table. (With fewer a convolution is meant to be grouped.)"""

CUDA_ROWS, CUDA_CHANNELS = 16, 32
"""Images and their channels from which a GPU that rounds to tf32 has channels last in memory, as its units for that
read them: 1.1 to 2.2 times as fast."""


class Conv2d(nn.Conv2d):
    """torch's layer, with padding by zeros and no dilation.

    Under vmap tasks that share the filters, as they do at the first inner step, run as one larger batch, and tasks
    with filters of their own, or with many images on a CPU, as one grouped convolution.

    Shapes: x [R, C, H, W] -> [R, out_channels, h, w].
    """

    def forward(self, x: Tensor) -> Tensor:
        if not context.transformed():
            # of one task, the same operations with less around them
            return super().forward(channels_last(x) if last_is_faster(x) else x)
        y = convolve(x, self.weight, Geometry(self.stride, self.padding, self.groups))  # type: ignore[arg-type]
        return y if self.bias is None else y + self.bias[:, None, None]


class Geometry(NamedTuple):
    """What a convolution does beside its numbers."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int

    def times(self, tasks: int) -> Geometry:
        """The same for so many tasks, the channels of each a group."""
        return self._replace(groups=self.groups * tasks)


def way(operation: str, like: Tensor, images: Sequence[int], filters: Sequence[int], geometry: Geometry) -> Way:
    """How a convolution of images and filters of these shapes is computed, or a gradient of it.

    `grouped` is torch's operation; `patches` a table and a product of matrices for each group (patches.py). A CPU
    takes the first, a GPU the faster one where there are groups, as scripts/convolutions.py measured them.

    Args:
        operation: `y`, `gx` or `gw`.
        like: any of the tensors, for their device and type.
    """
    if context.now.way is not None:
        return context.now.way
    if like.device.type != "cuda" or geometry.groups == 1 or filters[0] < LEAST_FILTERS * geometry.groups:
        return "grouped"
    numbers = patches.table_numbers(images, filters, geometry.stride, geometry.padding)
    if numbers * like.itemsize > TABLE_BYTES:
        return "grouped"
    pixels, places = images[0] * images[2] * images[3], numbers // (images[1] * filters[2] * filters[3])  # of a task
    channels = filters[1]
    if _rounds(like):
        faster = operation == "y" and channels < 32
    elif operation == "gw":
        faster = places < 500 or (3 < channels < 64 and pixels < 11_025)
    else:
        faster = operation == "gx" or pixels < 11_025
    return "patches" if faster else "grouped"


def _rounds(like: Tensor) -> bool:
    """Whether a GPU rounds the factors of its convolutions to tf32, in which cuDNN's grouped ones are fast."""
    cudnn: Any = torch.backends.cudnn
    return like.dtype == torch.float32 and bool(cudnn.conv.fp32_precision == "tf32")


def last_is_faster(x: Tensor) -> bool:
    """Whether images x [R, C, H, W] of one task are convolved faster with their channels last in memory."""
    if x.device.type != "cuda":
        return x.device.type == "cpu"
    return _rounds(x) and x.shape[0] >= CUDA_ROWS and x.shape[1] >= CUDA_CHANNELS


def convolve(x: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
    """y of x and w."""
    y: Tensor = _Convolution.apply(x, w, geometry)
    return y


def image_gradient(gy: Tensor, w: Tensor, geometry: Geometry, shape: Sequence[int]) -> Tensor:
    """gx, of the given shape, of gy and w."""
    gx: Tensor = _ImageGradient.apply(gy, w, geometry, shape)
    return gx


def filter_gradient(gy: Tensor, x: Tensor, geometry: Geometry, shape: Sequence[int]) -> Tensor:
    """gw, of the given shape, of gy and x."""
    gw: Tensor = _FilterGradient.apply(gy, x, geometry, shape)
    return gw


class _Convolution(Function):
    @staticmethod
    def forward(x: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
        if way("y", x, x.shape, w.shape, geometry) == "patches":
            return patches.convolve(x, w, *geometry)
        return torch.convolution(x, w, None, *geometry[:2], (1, 1), False, (0, 0), geometry.groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, w, ctx.geometry = inputs
        ctx.save_for_backward(x, w)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        gx = image_gradient(gy, w, ctx.geometry, x.shape) if ctx.needs_input_grad[0] else None
        gw = filter_gradient(gy, x, ctx.geometry, w.shape) if ctx.needs_input_grad[1] else None
        return gx, gw, None

    @staticmethod
    def vmap(info: Any, at: tuple[Any, ...], x: Tensor, w: Tensor, geometry: Geometry) -> tuple[Tensor, int]:
        tasks, last = info.batch_size, _last(x, at[0], geometry)
        if at[1] is None and not last:
            return from_rows(convolve(into_rows(x, at[0], tasks), w, geometry), tasks), 1
        x, w = into_channels(x, at[0], tasks), into_first(w, at[1], tasks)
        x = channels_last(x) if last else x
        return from_channels(convolve(x, w, geometry.times(tasks)), tasks), 1


class _ImageGradient(Function):
    @staticmethod
    def forward(gy: Tensor, w: Tensor, geometry: Geometry, shape: Sequence[int]) -> Tensor:
        if way("gx", gy, shape, w.shape, geometry) == "patches":
            return patches.image_gradient(gy, w, *geometry, shape)
        gx: Tensor = _gradients(gy, _empty_as(gy, shape), w, geometry, (True, False, False))[0]
        return gx

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        gy, w, ctx.geometry, _ = inputs
        ctx.save_for_backward(gy, w)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        gy, w = ctx.saved_tensors
        of_gy = convolve(v, w, ctx.geometry) if ctx.needs_input_grad[0] else None
        of_w = filter_gradient(gy, v, ctx.geometry, w.shape) if ctx.needs_input_grad[1] else None
        return of_gy, of_w, None, None

    @staticmethod
    def vmap(
        info: Any, at: tuple[Any, ...], gy: Tensor, w: Tensor, geometry: Geometry, shape: Sequence[int]
    ) -> tuple[Tensor, int]:
        tasks, (rows, channels, *sides) = info.batch_size, shape
        if at[1] is None and not _last(gy, at[0], geometry):
            gy = into_rows(gy, at[0], tasks)
            return from_rows(image_gradient(gy, w, geometry, (rows * tasks, channels, *sides)), tasks), 1
        gy, w = into_channels(gy, at[0], tasks), into_first(w, at[1], tasks)
        gx = image_gradient(gy, w, geometry.times(tasks), (rows, tasks * channels, *sides))
        return from_channels(gx, tasks), 1


class _FilterGradient(Function):
    @staticmethod
    def forward(gy: Tensor, x: Tensor, geometry: Geometry, shape: Sequence[int]) -> Tensor:
        if way("gw", gy, x.shape, shape, geometry) == "patches":
            return patches.filter_gradient(gy, x, *geometry, shape)
        gw: Tensor = _gradients(gy, x, gy.new_empty(shape), geometry, (False, True, False))[1]
        return gw

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        gy, x, ctx.geometry, _ = inputs
        ctx.save_for_backward(gy, x)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        gy, x = ctx.saved_tensors
        of_gy = convolve(x, v, ctx.geometry) if ctx.needs_input_grad[0] else None
        of_x = image_gradient(gy, v, ctx.geometry, x.shape) if ctx.needs_input_grad[1] else None
        return of_gy, of_x, None, None

    @staticmethod
    def vmap(
        info: Any, at: tuple[Any, ...], gy: Tensor, x: Tensor, geometry: Geometry, shape: Sequence[int]
    ) -> tuple[Tensor, int]:
        tasks = info.batch_size
        gy, x = into_channels(gy, at[0], tasks), into_channels(x, at[1], tasks)
        gw = filter_gradient(gy, x, geometry.times(tasks), (tasks * shape[0], *shape[1:]))
        return gw.reshape(tasks, *shape), 0


def _last(x: Tensor, at: int | None, geometry: Geometry) -> bool:
    """Whether the channels of images x, tasks at `at`, go last in memory under vmap."""
    rows = x.shape[1] if at == 0 else x.shape[0]
    return x.device.type == "cpu" and rows >= ROWS and max(geometry.stride) > 1


def _empty_as(y: Tensor, shape: Sequence[int]) -> Tensor:
    """A tensor of this shape in the memory order of y, which is what torch goes by."""
    last = y.is_contiguous(memory_format=torch.channels_last) and not y.is_contiguous()
    order = torch.channels_last if last else torch.contiguous_format
    return torch.empty(tuple(shape), dtype=y.dtype, device=y.device, memory_format=order)


def channels_last(x: Tensor) -> Tensor:
    """x [R, C, H, W] with the channels of a pixel side by side in memory, as a CPU's convolutions, normalisations and
    poolings are fastest: 1.0 to 1.7 times. What follows keeps to that order by itself."""
    if x.shape[1] == 1:  # both orders are the same but for the strides, which are what layers go by
        return x.reshape(x.shape[0], *x.shape[2:], 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


def _gradients(gy: Tensor, x: Tensor, w: Tensor, geometry: Geometry, wanted: tuple[bool, bool, bool]) -> Any:
    """gx and gw, as wanted; of the one whose gradient is wanted only the shape is read."""
    return torch.ops.aten.convolution_backward(
        gy, x, w, None, *geometry[:2], (1, 1), False, (0, 0), geometry.groups, wanted
    )
