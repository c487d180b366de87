"""The largest step along the natural gradient within a trust region."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

Pair = tuple[Tensor, Tensor]

SOLVER_STEPS = 10
DAMPING = 1e-5
HALVINGS = 15


def climb(parameters: Sequence[torch.nn.Parameter], measure: Callable[[], Pair], radius: float) -> Tensor:
    """Move the parameters to where the gain is higher and the divergence at most `radius`, or nowhere.

    Args:
        measure: gives gain and divergence at the present parameters; the divergence is 0 before the step.
        radius: in the unit of the divergence.
    Returns: the divergence after the step.
    Reference: Schulman et al. Trust Region Policy Optimization. ICML 2015. arXiv:1502.05477, appendix C.
    """
    gain, divergence = measure()
    slope = _flatten(torch.autograd.grad(gain, parameters, retain_graph=True))
    away = _flatten(torch.autograd.grad(divergence, parameters, create_graph=True))

    def curve(v: Tensor) -> Tensor:
        return _flatten(torch.autograd.grad(away @ v, parameters, retain_graph=True)) + DAMPING * v

    direction = solve(curve, slope)
    length = direction @ curve(direction)
    if not length > 0:
        return divergence.detach()
    step = direction * (2 * radius / length).sqrt()
    start, old = parameters_to_vector(parameters).detach(), gain.detach()
    for halving in range(HALVINGS):
        vector_to_parameters(start + 0.5**halving * step, parameters)
        with torch.no_grad():
            gain, divergence = measure()
        if gain > old and divergence <= radius:
            return divergence
    vector_to_parameters(start, parameters)
    return torch.zeros_like(divergence)


def solve(product: Callable[[Tensor], Tensor], right: Tensor) -> Tensor:
    """Solve product(x) = right for x by conjugate gradients, for a symmetric positive definite product."""
    x, residual = torch.zeros_like(right), right.clone()
    direction, size = residual.clone(), residual @ residual
    for _ in range(SOLVER_STEPS):
        if size < 1e-10 * (right @ right):
            break
        moved = product(direction)
        rate = size / (direction @ moved)
        x, residual = x + rate * direction, residual - rate * moved
        size, before = residual @ residual, size
        direction = residual + size / before * direction
    return x


def _flatten(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
