"""The optimizer of an inner loop: steps on named parameters as pure functions, right under vmap and second order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from metarun.ops.functional import Params, dot

Rule = Literal["sgd", "momentum", "adam"]


@dataclass(frozen=True)
class InnerOptimizer:
    """How a gradient becomes a step of an inner loop.

    `sgd` goes against the gradient; `momentum` against a decaying sum of the gradients so far; `adam` is Adam
    without first moment, the gradient over the root of its squares' decaying mean, which forgets the task last
    seen soonest (Nichol 2018). Every task starts with an empty memory.

    Args:
        rule: `sgd`, `momentum` or `adam`.
        clip_norm: longest gradient over all parameters together, > 0; longer ones are shortened to it. None: any.
        momentum: what is kept of the sum of gradients from step to step, in [0, 1).
        beta2: what is kept of the mean of squares, in [0, 1).
    """

    rule: str = "sgd"
    clip_norm: float | None = None
    momentum: float = 0.9
    beta2: float = 0.999

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise ValueError(f"algo.inner_optimizer={self.rule} is not one of {', '.join(get_args(Rule))}")

    @property
    def plain(self) -> bool:
        """Whether a step is the gradient times a rate, and nothing else."""
        return self.rule == "sgd" and self.clip_norm is None

    def start(self, phi: Params) -> Params:
        """The memory before the first step."""
        return {} if self.rule == "sgd" else {name: torch.zeros_like(value) for name, value in phi.items()}

    def step(
        self, phi: Params, grads: Params, memory: Params, index: int, rate: Callable[[str], Tensor | float]
    ) -> tuple[Params, Params]:
        """phi and memory after step `index`, counted from 0, each parameter going by its own `rate`."""
        if self.clip_norm is not None:
            grads = clipped(grads, self.clip_norm)
        if self.rule == "sgd":
            return {name: value - rate(name) * grads[name] for name, value in phi.items()}, memory
        if self.rule == "momentum":
            memory = {name: self.momentum * sums + grads[name] for name, sums in memory.items()}
            return {name: value - rate(name) * memory[name] for name, value in phi.items()}, memory
        memory = {n: self.beta2 * v + (1 - self.beta2) * grads[n].square() for n, v in memory.items()}
        correction = 1 - self.beta2 ** (index + 1)
        return {n: v - rate(n) * grads[n] / (_root(memory[n] / correction) + 1e-8) for n, v in phi.items()}, memory


def clipped(grads: Params, norm: float) -> Params:
    """`grads`, shortened to `norm` where they are longer."""
    longest = dot(grads, grads).clamp(min=norm**2).sqrt()
    return {name: grad * (norm / longest) for name, grad in grads.items()}


def _root(squares: Tensor) -> Tensor:
    """The square root, and 1 for 0: there the gradient is 0 as well, and the root's derivative infinite."""
    return torch.where(squares > 0, squares, 1.0).sqrt()
