"""The optimizer of an inner loop: pure functions of named parameters, exact under vmap and in second order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from metarun.core.ranges import check_choice
from metarun.ops.functional import Params, dot

Rule = Literal["sgd", "momentum", "adam"]


@dataclass(frozen=True)
class InnerOptimizer:
    """Turns a gradient into a step of an inner loop.

    `sgd` goes against the gradient, and `momentum` against a decaying sum of the gradients so far. `adam` is Adam
    without first moment: the gradient over the root of the decaying mean of its squares. Without first moment it
    forgets the last task soonest (Nichol 2018). Every task starts with an empty memory.

    Args:
        rule: `sgd`, `momentum` or `adam`.
        clip_norm: largest norm of the gradient over all parameters, > 0; longer ones are shortened. None: no limit.
        momentum: decay of the sum of gradients from step to step, in [0, 1).
        beta2: decay of the mean of squares, in [0, 1).
    """

    rule: Rule = "sgd"
    clip_norm: float | None = None
    momentum: float = 0.9
    beta2: float = 0.999

    def __post_init__(self) -> None:
        check_choice("algo.inner_optimizer", self.rule, Rule)

    @property
    def plain(self) -> bool:
        """Whether a step is just the gradient times a rate."""
        return self.rule == "sgd" and self.clip_norm is None

    def start(self, phi: Params) -> Params:
        """Return the memory before the first step."""
        return {} if self.rule == "sgd" else {name: torch.zeros_like(value) for name, value in phi.items()}

    def step(
        self, phi: Params, grads: Params, memory: Params, index: int, rate: Callable[[str], Tensor | float]
    ) -> tuple[Params, Params]:
        """Return phi and memory after step `index`, counted from 0; `rate` returns the step size of a parameter."""
        if self.clip_norm is not None:
            grads = clip_gradient(grads, self.clip_norm)
        if self.rule == "sgd":
            return {name: value - rate(name) * grads[name] for name, value in phi.items()}, memory
        if self.rule == "momentum":
            memory = {name: self.momentum * sums + grads[name] for name, sums in memory.items()}
            return {name: value - rate(name) * memory[name] for name, value in phi.items()}, memory
        memory = {n: self.beta2 * v + (1 - self.beta2) * grads[n].square() for n, v in memory.items()}
        correction = 1 - self.beta2 ** (index + 1)
        return {n: v - rate(n) * grads[n] / (_root(memory[n] / correction) + 1e-8) for n, v in phi.items()}, memory


def clip_gradient(grads: Params, norm: float) -> Params:
    """Shorten the gradient to `norm` if it is longer."""
    longest = dot(grads, grads).clamp(min=norm**2).sqrt()
    return {name: grad * (norm / longest) for name, grad in grads.items()}


def _root(squares: Tensor) -> Tensor:
    """Return the square root, and 1 for 0: there the gradient is 0 too, but the root's derivative is infinite."""
    return torch.where(squares > 0, squares, 1.0).sqrt()
