"""Gaussian processes with a covariance of which all is known: the prior of data=gp, and what follows from data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kernel = Literal["rbf", "matern12", "matern32", "matern52", "periodic"]


@dataclass(frozen=True)
class Prior:
    """Functions of mean zero, whose observations have noise; hyper-parameters are uniform in ranges, task by task.

    Args:
        kernel: one of Kernel.
        length_scale: least and greatest, in units of x, > 0; in periods for `periodic`.
        scale: least and greatest standard deviation of the function's values, > 0.
        period: least and greatest, in units of x, > 0; of `periodic` alone.
        noise: standard deviation of an observation, > 0.
    """

    kernel: str
    length_scale: tuple[float, float]
    scale: tuple[float, float]
    period: tuple[float, float]
    noise: float

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """Of the hyper-parameters, in the order of `covariance`."""
        return self.length_scale, self.scale, self.period

    def covariance(self, hyper: Tensor, x: Tensor) -> Tensor:
        """Of observations at x [..., P, D_in] under length scale, scale and period [..., 3]: [..., P, P]."""
        length, scale, period = (hyper[..., i, None, None] for i in range(3))
        distance = (x[..., :, None, :] - x[..., None, :, :]).square().sum(-1).sqrt()  # no gradient is ever taken
        k = scale.square() * _correlation(self.kernel, distance, length, period)
        return k + self.noise**2 * torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)

    def grid(self, nodes: int, like: Tensor) -> Tensor:
        """Hyper-parameters [G, 3] at the middles of `nodes` equal parts of each range that is not a point."""
        axes = []
        for low, high in self.ranges:
            middles = (torch.arange(nodes, dtype=like.dtype, device=like.device) + 0.5) / nodes
            axes.append(low + (high - low) * middles if high > low else torch.full_like(middles[:1], low))
        return torch.cartesian_prod(*axes)


@dataclass(frozen=True)
class Posterior:
    """What observations of a function tell of others.

    Attributes:
        log_evidence: log-density of the observations given [...].
        mean: of the others [..., M].
        covariance: of the others, their noise included [..., M, M].
    """

    log_evidence: Tensor
    mean: Tensor
    covariance: Tensor

    def log_density(self, y: Tensor) -> Tensor:
        """Of the others' values y [..., M] together, in nats [...]."""
        return _log_normal(y - self.mean, _cholesky(self.covariance))

    def log_densities(self, y: Tensor) -> Tensor:
        """Of each of the others' values on its own [..., M]."""
        variance = self.covariance.diagonal(dim1=-2, dim2=-1)
        return ((y - self.mean).square() / variance + variance.log() + math.log(2 * math.pi)) / -2


def posterior(covariance: Tensor, y: Tensor) -> Posterior:
    """From the joint covariance [..., S + M, S + M] of observations and others, and the observations y [..., S].

    Reference: Rasmussen, Williams. Gaussian Processes for Machine Learning. MIT Press 2006. Equations 2.22 to 2.24 for
        the others, 2.30 for the evidence.
    """
    s = y.shape[-1]
    root = _cholesky(covariance[..., :s, :s])
    cross = torch.linalg.solve_triangular(root, covariance[..., :s, s:], upper=False)  # [..., S, M]
    white = torch.linalg.solve_triangular(root, y[..., None], upper=False)  # [..., S, 1]
    mean = (cross.mT @ white)[..., 0]
    return Posterior(_log_normal(y, root), mean, covariance[..., s:, s:] - cross.mT @ cross)


def _cholesky(matrix: Tensor) -> Tensor:
    """The lower factor of each positive definite matrix [..., P, P]; NaN where a matrix is not.

    To raise an error, the host would have to wait for a GPU.
    """
    root, order = torch.linalg.cholesky_ex(matrix)  # order: 0, or that of the first minor that is not positive
    lower: Tensor = root.masked_fill(order[..., None, None] != 0, torch.nan)
    return lower


def _log_normal(y: Tensor, root: Tensor) -> Tensor:
    """Log-density of y [..., P] of mean zero whose covariance has the Cholesky factor `root` [..., P, P]."""
    white: Tensor = torch.linalg.solve_triangular(root, y[..., None], upper=False)[..., 0]
    log_determinant = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return (white.square().sum(-1) + log_determinant + y.shape[-1] * math.log(2 * math.pi)) / -2


def _correlation(kernel: str, distance: Tensor, length: Tensor, period: Tensor) -> Tensor:
    """Rasmussen and Williams, equations 4.9 (rbf), 4.14 and 4.17 (Matern) and 4.31 (periodic)."""
    if kernel == "periodic":
        return torch.exp(-2 * (torch.sin(math.pi * distance / period) / length).square())
    r = distance / length
    if kernel == "rbf":
        return torch.exp(-0.5 * r.square())
    if kernel == "matern12":
        return torch.exp(-r)
    if kernel == "matern32":
        return (math.sqrt(3) * r + 1) * torch.exp(-math.sqrt(3) * r)
    assert kernel == "matern52", kernel
    return (5 / 3 * r.square() + math.sqrt(5) * r + 1) * torch.exp(-math.sqrt(5) * r)
