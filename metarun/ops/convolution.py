"""Convolutions that stay fast when they run for all tasks at once and are differentiated twice.

A convolution is bilinear in images and filters, and so are its two gradients; the derivatives of each of the three
are the other two. torch's own second derivative consists of slower operations, which under vmap take one task after
the other. How each of the three is computed depends on the device: see `choose_way`.

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
from metarun.ops.task_axis import fold_into_channels, fold_into_first, fold_into_rows, unfold_channels, unfold_rows

CPU_MIN_ROWS = 24
"""Images of a task from which a CPU runs a strided convolution faster with the channels of all tasks last in memory.

Filters that the tasks share are then copied for each task. (Pooling under vmap would undo this order in memory.)
"""

MAX_TABLE_BYTES = 4 << 30
"""Bytes of the largest table of patches that a GPU makes."""

MIN_GROUP_FILTERS = 8
"""Filters of a group from which products of matrices are worth their table. (Fewer are grouped by design.)"""

CUDA_MIN_ROWS, CUDA_MIN_CHANNELS = 16, 32
"""Images of a task, and their channels, from which a GPU that rounds to tf32 runs faster with channels last in memory.

Its tf32 units read this order; it is 1.1 to 2.2 times as fast.
"""


class Conv2d(nn.Conv2d):
    """torch's layer, with padding by zeros and no dilation.

    Under vmap, tasks that share the filters, as at the first inner step, run as one larger batch. Tasks with filters of
    their own, and on a CPU tasks with many images, run as one grouped convolution.

    Shapes: x [R, C, H, W] -> [R, out_channels, h, w].
    """

    def forward(self, x: Tensor) -> Tensor:
        if not context.is_transformed():
            # torch's layer does the same for one task, with less overhead
            return super().forward(put_channels_last(x) if is_faster_channels_last(x) else x)
        y = convolve(x, self.weight, Geometry(self.stride, self.padding, self.groups))  # type: ignore[arg-type]
        return y if self.bias is None else y + self.bias[:, None, None]


class Geometry(NamedTuple):
    """The stride, padding and groups of a convolution."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int

    def multiply_groups(self, tasks: int) -> Geometry:
        """Return the geometry for so many tasks side by side in the channels."""
        return self._replace(groups=self.groups * tasks)


def choose_way(operation: str, like: Tensor, images: Sequence[int], filters: Sequence[int], geometry: Geometry) -> Way:
    """Choose how to compute a convolution of images and filters of these shapes, or one of its gradients.

    `grouped` is torch's operation; `patches` makes a table and multiplies matrices for each group (patches.py). A CPU
    takes the first. A GPU takes the faster one if there are groups, as scripts/convolutions.py measured them.

    Args:
        operation: `y`, `gx` or `gw`.
        like: any of the tensors; its device and dtype count.
    """
    if context.now.way is not None:
        return context.now.way
    if like.device.type != "cuda" or geometry.groups == 1 or filters[0] < MIN_GROUP_FILTERS * geometry.groups:
        return "grouped"
    numbers = patches.count_table_numbers(images, filters, geometry.stride, geometry.padding)
    if numbers * like.itemsize > MAX_TABLE_BYTES:
        return "grouped"
    pixels, places = images[0] * images[2] * images[3], numbers // (images[1] * filters[2] * filters[3])  # of a task
    channels = filters[1]
    if _rounds_to_tf32(like):
        faster = operation == "y" and channels < 32
    elif operation == "gw":
        faster = places < 500 or (3 < channels < 64 and pixels < 11_025)
    else:
        faster = operation == "gx" or pixels < 11_025
    return "patches" if faster else "grouped"


def _rounds_to_tf32(like: Tensor) -> bool:
    """Return whether a GPU rounds the factors of its convolutions to tf32; cuDNN's grouped ones are fast then."""
    cudnn: Any = torch.backends.cudnn
    return like.dtype == torch.float32 and bool(cudnn.conv.fp32_precision == "tf32")


def is_faster_channels_last(x: Tensor) -> bool:
    """Return whether images x [R, C, H, W] of one task are convolved faster with channels last in memory."""
    if x.device.type != "cuda":
        return x.device.type == "cpu"
    return _rounds_to_tf32(x) and x.shape[0] >= CUDA_MIN_ROWS and x.shape[1] >= CUDA_MIN_CHANNELS


def convolve(x: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
    """Return y for x and w."""
    y: Tensor = _Convolution.apply(x, w, geometry)
    return y


def image_gradient(gy: Tensor, w: Tensor, geometry: Geometry, shape: Sequence[int]) -> Tensor:
    """Return gx, of the given shape, for gy and w."""
    gx: Tensor = _ImageGradient.apply(gy, w, geometry, shape)
    return gx


def filter_gradient(gy: Tensor, x: Tensor, geometry: Geometry, shape: Sequence[int]) -> Tensor:
    """Return gw, of the given shape, for gy and x."""
    gw: Tensor = _FilterGradient.apply(gy, x, geometry, shape)
    return gw


class _Convolution(Function):
    @staticmethod
    def forward(x: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
        if choose_way("y", x, x.shape, w.shape, geometry) == "patches":
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
        tasks, last = info.batch_size, _puts_channels_last(x, at[0], geometry)
        if at[1] is None and not last:
            return unfold_rows(convolve(fold_into_rows(x, at[0], tasks), w, geometry), tasks), 1
        x, w = fold_into_channels(x, at[0], tasks), fold_into_first(w, at[1], tasks)
        x = put_channels_last(x) if last else x
        return unfold_channels(convolve(x, w, geometry.multiply_groups(tasks)), tasks), 1


class _ImageGradient(Function):
    @staticmethod
    def forward(gy: Tensor, w: Tensor, geometry: Geometry, shape: Sequence[int]) -> Tensor:
        if choose_way("gx", gy, shape, w.shape, geometry) == "patches":
            return patches.image_gradient(gy, w, *geometry, shape)
        gx: Tensor = _differentiate(gy, _make_empty(gy, shape), w, geometry, (True, False, False))[0]
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
        if at[1] is None and not _puts_channels_last(gy, at[0], geometry):
            gy = fold_into_rows(gy, at[0], tasks)
            return unfold_rows(image_gradient(gy, w, geometry, (rows * tasks, channels, *sides)), tasks), 1
        gy, w = fold_into_channels(gy, at[0], tasks), fold_into_first(w, at[1], tasks)
        gx = image_gradient(gy, w, geometry.multiply_groups(tasks), (rows, tasks * channels, *sides))
        return unfold_channels(gx, tasks), 1


class _FilterGradient(Function):
    @staticmethod
    def forward(gy: Tensor, x: Tensor, geometry: Geometry, shape: Sequence[int]) -> Tensor:
        if choose_way("gw", gy, x.shape, shape, geometry) == "patches":
            return patches.filter_gradient(gy, x, *geometry, shape)
        gw: Tensor = _differentiate(gy, x, gy.new_empty(shape), geometry, (False, True, False))[1]
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
        gy, x = fold_into_channels(gy, at[0], tasks), fold_into_channels(x, at[1], tasks)
        gw = filter_gradient(gy, x, geometry.multiply_groups(tasks), (tasks * shape[0], *shape[1:]))
        return gw.reshape(tasks, *shape), 0


def _puts_channels_last(x: Tensor, at: int | None, geometry: Geometry) -> bool:
    """Return whether to put channels last in memory under vmap, for images x with the tasks at axis `at`."""
    rows = x.shape[1] if at == 0 else x.shape[0]
    return x.device.type == "cpu" and rows >= CPU_MIN_ROWS and max(geometry.stride) > 1


def _make_empty(y: Tensor, shape: Sequence[int]) -> Tensor:
    """Make a tensor of this shape in the memory order of y: torch chooses its algorithm by that order."""
    last = y.is_contiguous(memory_format=torch.channels_last) and not y.is_contiguous()
    order = torch.channels_last if last else torch.contiguous_format
    return torch.empty(tuple(shape), dtype=y.dtype, device=y.device, memory_format=order)


def put_channels_last(x: Tensor) -> Tensor:
    """Return x [R, C, H, W] with the channels of a pixel side by side in memory.

    Convolutions, normalisations and poolings on a CPU are 1.0 to 1.7 times as fast in that order. Later layers keep it.
    """
    if x.shape[1] == 1:  # both orders differ only in the strides, by which layers recognise them
        return x.reshape(x.shape[0], *x.shape[2:], 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


def _differentiate(gy: Tensor, x: Tensor, w: Tensor, geometry: Geometry, wanted: tuple[bool, bool, bool]) -> Any:
    """Return gx and gw, as wanted. The tensor whose gradient is wanted serves only for its shape."""
    return torch.ops.aten.convolution_backward(
        gy, x, w, None, *geometry[:2], (1, 1), False, (0, 0), geometry.groups, wanted
    )
