"""Batch normalisation with a choice of statistics, and with exact second-order gradients under torch.func.

`bn=transductive`: the statistics of the present batch, in training and in tests (as in the code of Finn 2017).
`bn=support`: the statistics of the support images also normalise the query images, so that a query's prediction does
    not depend on the other queries.
`bn=running`: batch statistics in training, their running averages in validation and test (torch's default). An inner
    loop counts as training, even at test time: it normalises the support images by their own statistics. The running
    averages come from adapted networks and normalise the query images. (If a network was meta-trained without running
    averages in its inner loop, using them there brings MAML near chance.)
`bn=layer`: no batch normalisation but layer normalisation: each image by its own statistics, see layer_norm.py.
`bn=none`: no normalisation. With these two the layers before it have a bias, which BatchNorm would cancel.

A layer does not know which rows are support images, or whether an inner loop is running. The learner announces both
with the context managers of context.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarun.ops import context
from metarun.ops.layer_norm import MapLayerNorm
from metarun.ops.standardise import standardise

BATCH_MODES = ("transductive", "support", "running")
MODES = (*BATCH_MODES, "layer", "none")

AVERAGES = ("running_mean", "running_var")
"""The names of what layers keep with bn=running; no other mode asks for them."""

STANDARDISE_MIN_NUMBERS = 150_000
"""Numbers in a batch from which `standardise` saves more than its calls cost (measured on a CPU)."""


def batch_norm(channels: int, mode: str) -> nn.Module:
    """Return the layer for one of `MODES`."""
    if mode == "none":
        return nn.Identity()
    return MapLayerNorm(channels) if mode == "layer" else BatchNorm(channels, mode)


def needs_bias(mode: str) -> bool:
    """Return whether a layer in front of the normalisation needs a bias, which BatchNorm would cancel."""
    return mode not in BATCH_MODES


class BatchNorm(nn.Module):
    """Batch normalisation of [R, C] or [R, C, H, W] with one of `BATCH_MODES`.

    It runs `standardise` under torch.func, and for large batches that are differentiated twice. In torch 2.11 to 2.15,
    second-order gradients of `F.batch_norm` are wrong without an error under grad(vmap(grad)), and slow elsewhere.

    Args:
        channels: C.
        mode: one of `BATCH_MODES`.
        eps: added to the variance.
        momentum: weight of the newest batch in the running averages, in (0, 1].
    Reference: Ioffe, Szegedy. Batch Normalization. ICML 2015. arXiv:1502.03167.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, mode: str, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        if mode not in BATCH_MODES:
            raise ValueError(f"bn={mode} is not one of {', '.join(MODES)}")
        self.mode, self.eps, self.momentum = mode, eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        if mode == "running":
            self.register_buffer("running_mean", torch.zeros(channels))
            self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        numbers = x.numel() // x.shape[1]
        if self._by_averages() or self._rows() is not None:
            scale, shift = self.scale_and_shift(lambda rows: _var_mean(x[:rows]), numbers)
            shape = (-1,) + (1,) * (x.dim() - 2)
            return x * scale.reshape(shape) + shift.reshape(shape)
        if context.is_transformed() or (context.now.twice and x.numel() >= STANDARDISE_MIN_NUMBERS):
            self._record(lambda: _var_mean(x.detach()), numbers)
            return standardise(x, self.weight, self.bias, self.eps)
        weight = self.weight.contiguous()  # torch's gradients are wrong for other weights, see standardise.py
        mean = var = None
        if (kept := self._find_record()) is not None:  # torch tells what it found: var_mean takes thrice the whole time
            mean, var = x.new_zeros(2, x.shape[1])
            kept.append((mean, var))
        return F.batch_norm(x, mean, var, weight, self.bias, training=True, momentum=1.0, eps=self.eps)

    def scale_and_shift(
        self, moments: Callable[[int | None], tuple[Tensor, Tensor]], numbers: int
    ) -> tuple[Tensor, Tensor]:
        """Return the factor and the summand, [C] each, that normalise the present batch.

        Args:
            moments: takes a number n and returns variance and mean [C] of the first n rows of the batch; None: of all.
            numbers: numbers of each channel in the batch.
        """
        if self._by_averages():
            var, mean = self.running_var, self.running_mean
        else:
            var, mean = moments(self._rows())
            self._record(lambda: (var, mean), numbers)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return scale, self.bias - mean * scale

    def _by_averages(self) -> bool:
        return self.mode == "running" and not self.training and not context.now.adapting

    def _rows(self) -> int | None:
        """Return how many rows the statistics are taken from; None for all."""
        return context.now.support_rows if self.mode == "support" else None

    def _find_record(self) -> list[tuple[Tensor, Tensor]] | None:
        """Return the list of `context.recording` if it is active and this layer keeps averages."""
        return context.now.recorded if self.mode == "running" else None

    def _record(self, moments: Callable[[], tuple[Tensor, Tensor]], numbers: int) -> None:
        """Append the mean and variance of a batch to the list, if there is one."""
        if (kept := self._find_record()) is not None:
            var, mean = (moment.detach() for moment in moments())
            kept.append((mean, var * (numbers / (numbers - 1))))  # unbiased, as torch does


@torch.no_grad()
def update_running(module: nn.Module, statistics: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Update the running averages of the layers of `module`, in order, by statistics with any leading task axes."""
    for layer, (mean, var) in zip(find_running_layers(module), statistics, strict=True):
        channels = layer.running_mean.shape[0]
        layer.running_mean.lerp_(mean.reshape(-1, channels).mean(0), layer.momentum)
        layer.running_var.lerp_(var.reshape(-1, channels).mean(0), layer.momentum)


def find_running_layers(module: nn.Module) -> list[BatchNorm]:
    """Find the layers with `bn=running`, in the order in which they were built."""
    return [layer for layer in module.modules() if isinstance(layer, BatchNorm) and layer.mode == "running"]


def has_batch_norm(module: nn.Module) -> bool:
    """Return whether `bn` makes a difference to `module`."""
    return any(isinstance(layer, BatchNorm) for layer in module.modules())


def normalises_rows_alone(module: nn.Module) -> bool:
    """Return whether, in validation and test, no row of a batch affects the normalisation of another."""
    return all(layer.mode == "running" for layer in module.modules() if isinstance(layer, BatchNorm))


def uses_support_statistics(module: nn.Module) -> bool:
    """Return whether some layer must be told which rows are support images."""
    return any(isinstance(layer, BatchNorm) and layer.mode == "support" for layer in module.modules())


def _var_mean(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.var_mean(x, dim=[d for d in range(x.dim()) if d != 1], unbiased=False)
