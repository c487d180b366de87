"""How much better than expected what followed a step was."""

from __future__ import annotations

import torch
from torch import Tensor


def find_advantages(rewards: Tensor, values: Tensor, discount: float, trace: float) -> Tensor:
    """Return generalised advantage estimates [..., T] of rewards [..., T] with values [..., T]; nothing follows T.

    Args:
        discount: gamma, in 0..1.
        trace: lambda, in 0..1: from one step's error to the whole of what followed.
    Reference: Schulman et al. High-Dimensional Continuous Control Using Generalized Advantage Estimation. ICLR 2016.
        arXiv:1506.02438, equation 16.
    """
    following = torch.cat([values[..., 1:], torch.zeros_like(values[..., :1])], -1)
    return sum_discounted(rewards + discount * following - values, discount * trace)


def sum_discounted(x: Tensor, discount: float) -> Tensor:
    """Return sum over s >= t of discount^(s - t) x_s, for each t of x [..., T]."""
    total, sums = torch.zeros_like(x[..., 0]), []
    for value in x.unbind(-1)[::-1]:
        total = value + discount * total
        sums.append(total)
    return torch.stack(sums[::-1], -1)


def standardise(x: Tensor, dims: tuple[int, ...], among: Tensor | None = None) -> Tensor:
    """Return x with mean 0 and deviation 1 over `dims`, counting only steps where `among` is 1; elsewhere 0."""
    among = torch.ones_like(x) if among is None else among
    count = among.sum(dims, keepdim=True)
    centred = (x - (x * among).sum(dims, keepdim=True) / count) * among
    return centred / ((centred.square().sum(dims, keepdim=True) / count).sqrt() + 1e-8)
