"""Notice a loss or a gradient that is not finite before the weights move, and find the task that it comes from."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from metarun.algos.base.learner import Learner
from metarun.run.progress import Diverged
from metarun.run.team import Group


class NotFinite(Exception):
    """A gradient of this outer step is not finite; the weights are those from before the step."""


class GradientWatch:
    """Raises NotFinite in an outer step whose gradients are not all finite, before any optimizer moves.

    Looking at the gradients of a GPU waits for it, so there it is done only if `skip` asks for it.
    """

    def __init__(self, learner: Learner, optims: dict[str, Optimizer], skip: bool) -> None:
        self.learner, self.fresh = learner, True
        self.buffers: list[Tensor] = list(learner.buffers()) if skip else []
        self.before: list[Tensor] = []
        if skip or all(value.device.type == "cpu" for value in learner.parameters()):
            for optim in optims.values():
                optim.register_step_pre_hook(self._check)

    def begin(self) -> None:
        """Start an outer step."""
        self.fresh = True
        self.before = [buffer.clone() for buffer in self.buffers]

    def undo(self) -> None:
        """Undo what the outer step changed beside the weights: its statistics may not be finite either."""
        for buffer, value in zip(self.buffers, self.before, strict=True):
            buffer.copy_(value)

    def _check(self, optim: Optimizer, args: Any, kwargs: Any) -> None:
        if self.fresh and find_gradient(self.learner):
            raise NotFinite
        self.fresh = False


def find_gradient(learner: Learner) -> str | None:
    """Return the name of the first parameter whose gradient is not finite; None if all are finite."""
    named = [(name, value.grad) for name, value in learner.named_parameters() if value.grad is not None]
    if not named:
        return None
    largest = torch.stack(torch._foreach_norm([grad for _, grad in named], float("inf")))
    found = (~torch.isfinite(largest)).nonzero()
    return named[int(found[0])][0] if len(found) else None


def check_weights(learner: Learner, when: str, step: int) -> None:
    """Raise Diverged if a weight is not finite after `when` (an outer step or a round) number `step`."""
    if not all(bool(torch.isfinite(value).all()) for value in learner.parameters()):
        raise Diverged(f"a weight is not a finite number after {when} {step}", step)


def describe_gradient(learner: Learner) -> str:
    """Say which parameter's gradient is not finite, the first of them; an empty string if all are."""
    name = find_gradient(learner)
    return f"the gradient of {name} is not finite" if name else ""


def trace(learner: Learner, batch: Any, group: Group, step: int) -> Diverged:
    """Find the first task of a meta-batch whose loss or gradient is not finite by itself, and what of it is not.

    Args:
        batch: the whole meta-batch; the processes of `group` look at their parts.
        step: the number of the outer step, from 1.
    """
    what = describe_gradient(learner) or "a gradient is not finite"
    if not hasattr(batch, "tasks"):
        return Diverged(f"{what} at outer step {step}", step)
    first, last = group.share(batch.n_tasks)
    bad = torch.zeros(last - first)
    for place in range(first, last):
        found = examine(learner, batch.tasks(place, place + 1))
        if found.problem:
            bad[place - first] = 1
            what = found.problem
            break
    every = group.gather(bad, batch.n_tasks).nonzero()
    task = int(every[0]) if len(every) else None
    where = "" if task is None else f", task {task} of {batch.n_tasks}"
    return Diverged(f"{what} at outer step {step}{where}", step, task)


class Examined(NamedTuple):
    """What one task does to the learner.

    Attributes:
        metrics: its training metrics.
        gradient: the length of its gradient.
        problem: what is not finite, in words; empty if all is.
    """

    metrics: dict[str, float]
    gradient: float
    problem: str


def examine(learner: Learner, task: Any) -> Examined:
    """Compute the loss and the gradient of one task; the weights, buffers and gradients of the learner stay."""
    buffers = [(buffer, buffer.clone()) for buffer in learner.buffers()]
    kept = [(value, value.grad) for value in learner.parameters()]
    for value in learner.parameters():
        value.grad = None
    try:
        metrics = {name: float(value) for name, value in learner.meta_gradient(task).items()}
        grads = [value.grad for value in learner.parameters() if value.grad is not None]
        length = float(torch.stack([grad.double().square().sum() for grad in grads]).sum().sqrt()) if grads else 0.0
        wrong = next((name for name, value in metrics.items() if not abs(value) < float("inf")), None)
        problem = f"{wrong} is {metrics[wrong]}" if wrong else describe_gradient(learner)
    finally:
        for value, grad in kept:
            value.grad = grad
        for buffer, before in buffers:
            buffer.copy_(before)
    return Examined(metrics, length, problem)
