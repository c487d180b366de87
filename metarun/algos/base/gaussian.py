"""Gaussian predictions of a function's values."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal


def make_gaussian(mean: Tensor, std: Tensor) -> Distribution:
    """Make a Gaussian that is independent in the last dimension and sums log-densities over it."""
    return Independent(Normal(mean, std, validate_args=False), 1, validate_args=False)


def log_normal(x: Tensor, log_std: Tensor) -> Tensor:
    """Return the log-density of each number of x, Gaussian of mean 0, by the logarithm of its standard deviation."""
    return -0.5 * (x * torch.exp(-log_std)).square() - log_std - 0.5 * math.log(2 * math.pi)


def bound_gaussian(output: Tensor, min_std: float) -> Distribution:
    """Make a Gaussian from a network's outputs [..., 2 D]: D means, and D numbers that become standard deviations.

    Args:
        min_std: least standard deviation, in 0..1.
    """
    mean, raw = output.chunk(2, -1)
    return make_gaussian(mean, min_std + (1 - min_std) * F.softplus(raw))
