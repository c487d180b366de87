"""Max-pooling that copies no images when it runs for all tasks at once and is differentiated twice.

Under vmap, torch's max-pooling treats tasks as more rows, but convolutions and normalisations with weights for each
task treat them as more channels. Each change between the two copies the unpooled images, forward and backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from metarun.ops import context
from metarun.ops.task_axis import fold_into_channels, unfold_channels


class MaxPool2d(nn.MaxPool2d):
    """torch's layer, without dilation, rounding up or returned indices.

    Shapes: x [R, C, H, W] -> [R, C, h, w].
    """

    def forward(self, x: Tensor) -> Tensor:
        if not context.is_transformed():
            pooled: Tensor = super().forward(x)
            return pooled
        y: Tensor = _Pool.apply(x, *map(_pair, (self.kernel_size, self.stride, self.padding)))[0]
        return y


class _Pool(Function):
    """Returns y, and for each number of y its index in the image [H * W] of x."""

    @staticmethod
    def forward(x: Tensor, side: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> Any:
        return torch.ops.aten.max_pool2d_with_indices(x, side, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, *ctx.geometry = inputs
        ctx.shape = x.shape
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, gy: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return _Gradient.apply(gy, *ctx.saved_tensors, ctx.shape, *ctx.geometry), None, None, None

    @staticmethod
    def vmap(info: Any, at: tuple[Any, ...], x: Tensor, *geometry: Any) -> Any:
        tasks = info.batch_size
        found = _Pool.apply(fold_into_channels(x, at[0], tasks).contiguous(), *geometry)
        return tuple(unfold_channels(each, tasks) for each in found), (1, 1)


class _Gradient(Function):
    """Returns gx, of the given shape, for gy and the indices."""

    @staticmethod
    def forward(gy: Tensor, places: Tensor, shape: Sequence[int], *geometry: Any) -> Tensor:
        x = gy.new_empty(tuple(shape))  # torch reads only its shape
        gx: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(gy, x, *geometry, (1, 1), False, places)
        return gx

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        (places,) = ctx.saved_tensors
        of_gy = v.flatten(2).gather(2, places.flatten(2)).reshape(places.shape)
        return of_gy, *(None,) * 5

    @staticmethod
    def vmap(info: Any, at: tuple[Any, ...], gy: Tensor, places: Tensor, shape: Sequence[int], *geometry: Any) -> Any:
        tasks, (rows, channels, *sides) = info.batch_size, shape
        gy, places = (fold_into_channels(each, where, tasks) for each, where in zip((gy, places), at[:2], strict=True))
        gx = _Gradient.apply(gy, places, (rows, tasks * channels, *sides), *geometry)
        return unfold_channels(gx, tasks), 1


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
