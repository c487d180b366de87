"""An inner loss that keeps phi near theta."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from metarun.algos.base.inner_loop import InnerLoop
from metarun.ops.functional import Params


def hold_near(loss: Callable[[Params], Tensor], theta: Params, lam: float) -> Callable[[Params], Tensor]:
    """Return `loss` plus lam / 2 times the squared distance to theta, with theta as a constant."""
    centre = {name: value.detach() for name, value in theta.items()}

    def held(phi: Params) -> Tensor:
        distance = torch.stack([(value - centre[name]).square().sum() for name, value in phi.items()]).sum()
        return loss(phi) + lam / 2 * distance

    return held


def check_rate(inner: InnerLoop, lam: float) -> None:
    """Raise ValueError if the pull towards theta alone makes gradient descent diverge."""
    if inner.optimizer.rule == "sgd" and inner.lr * lam >= 2:
        raise ValueError(
            f"algo.inner_lr={inner.lr} with algo.lam={lam} runs away from theta: "
            f"set algo.inner_lr below 2 / lam = {2 / lam:g}"
        )
