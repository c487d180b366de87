"""Gaussian processes with a known covariance: the prior of data=gp, and the posterior given observations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kernel = Literal["rbf", "matern12", "matern32", "matern52", "periodic"]


@dataclass(frozen=True)
class Prior:
    """A prior over functions of mean zero with noisy observations.

    Each task draws its own hyper-parameters, uniformly from the ranges.

    Args:
        kernel: one of Kernel.
        length_scale: least and greatest, in units of x, > 0; in periods for `periodic`.
        scale: least and greatest standard deviation of the function's values, > 0.
        period: least and greatest, in units of x, > 0; only `periodic` uses it.
        noise: standard deviation of an observation, > 0.
    """

    kernel: str
    length_scale: tuple[float, float]
    scale: tuple[float, float]
    period: tuple[float, float]
    noise: float

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """The ranges of the hyper-parameters, in the order that `covariance` expects."""
        return self.length_scale, self.scale, self.period

    def covariance(self, hyper: Tensor, x: Tensor) -> Tensor:
        """Return the covariance [..., P, P] of observations at x [..., P, D_in].

        `hyper` [..., 3] holds length scale, scale and period.
        """
        length, scale, period = (hyper[..., i, None, None] for i in range(3))
        distance = (x[..., :, None, :] - x[..., None, :, :]).square().sum(-1).sqrt()  # never differentiated
        k = scale.square() * _correlation(self.kernel, distance, length, period)
        return k + self.noise**2 * torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)

    def grid(self, nodes: int, like: Tensor) -> Tensor:
        """Return a grid of hyper-parameters [G, 3]: the middles of `nodes` equal parts of each range.

        A range of a single point gives this point.
        """
        axes = []
        for low, high in self.ranges:
            middles = (torch.arange(nodes, dtype=like.dtype, device=like.device) + 0.5) / nodes
            axes.append(low + (high - low) * middles if high > low else torch.full_like(middles[:1], low))
        return torch.cartesian_prod(*axes)


@dataclass(frozen=True)
class Posterior:
    """The distribution of further observations of a function, given some observations.

    Attributes:
        log_evidence: log-density of the given observations [...].
        mean: mean of the further ones [..., M].
        covariance: covariance of the further ones, with their noise [..., M, M].
    """

    log_evidence: Tensor
    mean: Tensor
    covariance: Tensor

    def log_density(self, y: Tensor) -> Tensor:
        """Return the joint log-density of the further values y [..., M], in nats [...]."""
        return _log_normal(y - self.mean, _cholesky(self.covariance))

    def log_densities(self, y: Tensor) -> Tensor:
        """Return the log-density of each further value y [..., M] by itself, in nats [..., M]."""
        variance = self.covariance.diagonal(dim1=-2, dim2=-1)
        return ((y - self.mean).square() / variance + variance.log() + math.log(2 * math.pi)) / -2


def posterior(covariance: Tensor, y: Tensor) -> Posterior:
    """Return the posterior of M further observations, given the observations y [..., S].

    Args:
        covariance: of the S given and the M further observations, jointly [..., S + M, S + M].
    Reference: Rasmussen, Williams. Gaussian Processes for Machine Learning. MIT Press 2006. Equations 2.22 to 2.24 for
        the further observations, 2.30 for the evidence.
    """
    s = y.shape[-1]
    root = _cholesky(covariance[..., :s, :s])
    cross = torch.linalg.solve_triangular(root, covariance[..., :s, s:], upper=False)  # [..., S, M]
    white = torch.linalg.solve_triangular(root, y[..., None], upper=False)  # [..., S, 1]
    mean = (cross.mT @ white)[..., 0]
    return Posterior(_log_normal(y, root), mean, covariance[..., s:, s:] - cross.mT @ cross)


def _cholesky(matrix: Tensor) -> Tensor:
    """Return the lower factor of each positive definite matrix [..., P, P], and NaN for other matrices.

    Raising an error would make the host wait for a GPU.
    """
    root, order = torch.linalg.cholesky_ex(matrix)  # order: 0, or that of the first minor that is not positive
    lower: Tensor = root.masked_fill(order[..., None, None] != 0, torch.nan)
    return lower


def _log_normal(y: Tensor, root: Tensor) -> Tensor:
    """Return the log-density of y [..., P] under mean zero and a covariance with Cholesky factor `root` [..., P, P]."""
    white: Tensor = torch.linalg.solve_triangular(root, y[..., None], upper=False)[..., 0]
    log_determinant = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return (white.square().sum(-1) + log_determinant + y.shape[-1] * math.log(2 * math.pi)) / -2


def _correlation(kernel: str, distance: Tensor, length: Tensor, period: Tensor) -> Tensor:
    """Return the kernel's correlation at a distance.

    Reference: Rasmussen and Williams, equations 4.9 (rbf), 4.14 and 4.17 (Matern) and 4.31 (periodic).
    """
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
