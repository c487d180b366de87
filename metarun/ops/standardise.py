"""Batch normalisation by a batch's own statistics, with its second derivative in closed form.

torch's kernels compute the first derivative in two passes over the numbers. Its second derivative takes some twenty
elementary operations, each a pass, and is wrong under grad(vmap(grad)) without an error (torch 2.11 to 2.15). The first
derivative is wrong as well if images have channels last in memory and the weights are not contiguous.

With M numbers in each channel, s = 1 / sqrt(var + eps), n = (x - mean) s and P g = g - mean(g) - n mean(n g):
    y = w n + b            gx = w s P g            gw = sum(g n)            gb = sum(g)
and the gradients for given gradients v of gx, p of gw and q of gb:
    for g:  w s P v + p n + q
    for w:  s (sum(v g) - M mean(v) mean(g) - M mean(v n) mean(g n))
    for x:  -w s^2 (n (mean(v g) - mean(v) mean(g) - mean(v n) mean(g n)) + mean(g n) P v + mean(v n) P g) + p s P g
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from metarun.ops.task_axis import fold_into_channels, fold_into_first, unfold_channels


def standardise(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return x [R, C, ...] with mean 0 and variance 1 in each channel, times weight [C], plus bias [C].

    The result can be differentiated any number of times, under vmap or not.
    """
    y: Tensor = _Standardise.apply(x, weight, bias, eps)[0]
    return y


class _Standardise(Function):
    @staticmethod
    def forward(x: Tensor, w: Tensor, b: Tensor, eps: float) -> Any:
        return torch.ops.aten.native_batch_norm(x, w, b, None, None, True, 0.0, eps)  # y, mean, s

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, w, _, ctx.eps = inputs
        _, mean, s = output
        ctx.mark_non_differentiable(mean, s)
        ctx.save_for_backward(x, w, mean, s)

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        return *_Gradient.apply(g, *ctx.saved_tensors, ctx.eps), None

    @staticmethod
    def vmap(info: Any, at: tuple[Any, ...], x: Tensor, w: Tensor, b: Tensor, eps: float) -> Any:
        tasks = info.batch_size
        w, b = fold_into_first(w, at[1], tasks), fold_into_first(b, at[2], tasks)
        y, *statistics = _Standardise.apply(fold_into_channels(x, at[0], tasks), w, b, eps)
        return (unfold_channels(y, tasks), *(each.reshape(tasks, -1) for each in statistics)), (1, 0, 0)


class _Gradient(Function):
    """Returns gx, gw and gb; mean and s must be those of x."""

    @staticmethod
    def forward(g: Tensor, x: Tensor, w: Tensor, mean: Tensor, s: Tensor, eps: float) -> Any:
        everything, aten, w = (True, True, True), torch.ops.aten, w.contiguous()
        return aten.native_batch_norm_backward(_order_as(x, g), x, w, None, None, mean, s, True, eps, everything)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:5], *output[1:])
        ctx.eps = inputs[5]

    @staticmethod
    def backward(ctx: Any, v: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor | None, ...]:
        g, x, w, mean, s, sum_gn, sum_g = ctx.saved_tensors
        channel = (-1, *(1,) * (x.dim() - 2))
        others, numbers = [d for d in range(x.dim()) if d != 1], x.numel() // x.shape[1]
        if torch.is_grad_enabled():  # the results may be differentiated again, and mean and s depend on x
            var, mean = torch.var_mean(x, others, unbiased=False)
            s = torch.rsqrt(var + ctx.eps)
        ws_pv, sum_vn, sum_v = _Gradient.apply(v, x, w, mean, s, ctx.eps)
        mean_gn, mean_g, mean_vn, mean_v = (each / numbers for each in (sum_gn, sum_g, sum_vn, sum_v))
        spread = (v * g).sum(others) / numbers - mean_v * mean_g - mean_vn * mean_gn

        # Each is a sum of v, g, x and 1 with a factor for each channel; n is s x - s mean.
        of_g = torch.addcmul(ws_pv + (q - p * s * mean).reshape(channel), (p * s).reshape(channel), x)
        wss = w * s * s
        by_v, by_g = -wss * mean_gn, p * s - wss * mean_vn
        by_n = -wss * spread - by_v * mean_vn - by_g * mean_gn
        by_1 = -by_v * mean_v - by_g * mean_g - by_n * s * mean
        of_x = torch.addcmul(by_1.reshape(channel), by_v.reshape(channel), v)
        of_x = torch.addcmul(of_x, by_g.reshape(channel), g)
        of_x = torch.addcmul(of_x, (by_n * s).reshape(channel), x)
        return of_g, of_x, s * numbers * spread, None, None, None

    @staticmethod
    def vmap(info: Any, at: tuple[Any, ...], g: Tensor, x: Tensor, *rest: Any) -> Any:
        tasks = info.batch_size
        *channels, eps = rest
        joined = (fold_into_first(each, where, tasks) for each, where in zip(channels, at[2:5], strict=True))
        gx, *sums = _Gradient.apply(
            fold_into_channels(g, at[0], tasks), fold_into_channels(x, at[1], tasks), *joined, eps
        )
        return (unfold_channels(gx, tasks), *(each.reshape(tasks, -1) for each in sums)), (1, 0, 0)


def _order_as(x: Tensor, g: Tensor) -> Tensor:
    """Return g in the memory order of x; the kernel is slow if the orders differ."""
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return g.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
