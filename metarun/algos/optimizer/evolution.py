"""Persistent evolution strategies: gradients of long unrolls from short pieces of them, without differentiation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from metarun.ops.functional import Params, flatten, unflatten


class Evolution:
    """Estimates the meta-gradient from pairs of unrolls whose parameters differ by opposite random numbers.

    Each piece of an unroll draws new ones, and the gradient is told by the sum of all that a pair has drawn so far, so
    it is that of the whole unroll. Truncated differentiation leaves out what parameters do to later pieces.

    Args:
        std: standard deviation of what is added to the parameters.
    Reference: Vicol, Metz, Sohl-Dickstein. ICML 2021. arXiv:2112.13835, Algorithm 2.
    """

    def __init__(self, std: float) -> None:
        self.std = std

    def estimate(
        self, rule: nn.Module, unroll: Callable[[Params, Any], tuple[Tensor, Any]], n_tasks: int, carry: Any
    ) -> tuple[Tensor, Any]:
        """Add the estimate to the gradients of `rule`; return the mean loss, and what the next piece needs.

        Args:
            unroll: from parameters [B, ...] and a state to the losses [B] of a piece and the next state.
            n_tasks: B; each task has a pair of its own.
            carry: what the piece before returned; before the first, (state, state, 0).
        """
        shapes = {name: value.detach() for name, value in rule.named_parameters()}
        with torch.no_grad():
            theta = flatten(shapes)
            drawn = self.std * torch.randn(n_tasks, len(theta), dtype=theta.dtype, device=theta.device)
            up, down, total = carry
            total = total + drawn
            cut = torch.func.vmap(lambda flat: unflatten(flat, shapes))
            plus, up = unroll(cut(theta + drawn), up)
            minus, down = unroll(cut(theta - drawn), down)
            found = total.T @ (plus - minus) / (2 * self.std**2 * n_tasks)
            for name, value in unflatten(found, shapes).items():
                rule.get_parameter(name).grad = value
        return (plus + minus).mean() / 2, (up, down, total)
