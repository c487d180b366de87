"""Fit weights to a task's examples in small batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypedDict

import torch
from torch import Tensor

from metarun.algos.base.inner_optimizer import InnerOptimizer, Rule
from metarun.core.ranges import NonNegativeInt, PositiveFloat, PositiveInt
from metarun.core.tasks import Examples
from metarun.ops.functional import Params, gradient


class BatchFitSettings(TypedDict):
    """Settings of methods that fit weights to each task of a stream.

    Keys:
        inner_lr: step size, > 0.
        passes: how often each example of a task comes.
        batch_size: examples of a step.
        inner_optimizer: `sgd`, `momentum` or `adam` (without first moment), with an empty memory for each task.
        task_chunk: see EpisodicLearner.
    """

    inner_lr: PositiveFloat
    passes: PositiveInt
    batch_size: PositiveInt
    inner_optimizer: Rule
    task_chunk: NonNegativeInt


class BatchFit:
    """Fits weights to examples in small batches, in an order that depends on nothing but their number."""

    def __init__(self, settings: BatchFitSettings) -> None:
        self.lr, self.passes, self.batch_size = settings["inner_lr"], settings["passes"], settings["batch_size"]
        self.optimizer = InnerOptimizer(settings["inner_optimizer"])

    def __call__(self, loss: Callable[[Examples, Params], Tensor], start: Params, examples: Examples) -> Params:
        """Return the weights after a descent of `loss` from `start`; they are constants for outer derivatives."""
        phi, memory, step = start, self.optimizer.start(start), 0
        for number in range(self.passes):
            order = torch.randperm(len(examples.y), generator=torch.Generator().manual_seed(number))
            for rows in torch.split(order.to(examples.x.device), self.batch_size):
                batch = Examples(examples.x[rows], examples.y[rows])
                grads = gradient(partial(loss, batch), phi, first_order=True)
                phi, memory = self.optimizer.step(phi, grads, memory, step, lambda name: self.lr)
                step += 1
        return phi

    def describe(self) -> dict[str, Any]:
        """Return facts to report beside a method's scores."""
        return {"inner_lr": self.lr, "passes": self.passes, "inner_optimizer": self.optimizer.rule}
