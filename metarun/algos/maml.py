from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from metarun.algos.l2l import learn2learn
from metarun.algos.learner import Classifier, EpisodicLearner, with_support
from metarun.functional import Params, call, gradient, within
from metarun.types import Examples


class Adapted(NamedTuple):
    """A task's state: phi, and the support inputs [S, ...] that `bn=support` normalises by."""

    phi: Params
    support_x: Tensor


class MAML(EpisodicLearner):
    """Learns initial weights from which a few gradient steps on a new task's support set do well.

    The meta-gradient goes through the inner steps (second order) unless `first_order` cuts it there. Losses
    are means over examples; the paper's code sums over the classes, so its step size 0.4 on 5-way tasks is
    2.0 here.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: from inputs to features [R, out_features].
        n_way: classes of a task, the outputs of the linear head.
        inner_lr: step size of the inner loop (alpha in the paper), > 0.
        inner_steps: gradient steps on the support set in meta-training, >= 1.
        test_inner_steps: the same in validation and test, >= 0.
        first_order: leave the second derivatives out (FOMAML).
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner; `learn2learn` wraps the network
            in learn2learn's MAML.
    Reference: Finn, Abbeel, Levine. Model-Agnostic Meta-Learning. ICML 2017. arXiv:1703.03400, Algorithm 2.
    """

    def __init__(
        self,
        backbone: nn.Module,
        n_way: int,
        inner_lr: float,
        inner_steps: int,
        test_inner_steps: int,
        first_order: bool,
        engine: str,
        task_chunk: int,
    ) -> None:
        super().__init__(engine, task_chunk)
        self.inner_lr, self.first_order = inner_lr, first_order
        self.inner_steps, self.test_inner_steps = inner_steps, test_inner_steps
        self.net = Classifier(backbone, n_way)

    @property
    def steps(self) -> int:
        """Inner steps of the present use."""
        return self.inner_steps if self.training else self.test_inner_steps

    def adapt(self, params: Params, support: Examples, n_way: int) -> Adapted:
        phi = within(params, "net")
        for _ in range(self.steps):
            grads = gradient(lambda p: cross_entropy(call(self.net, p, support.x), support.y), phi, self.first_order)
            phi = {name: value - self.inner_lr * grads[name] for name, value in phi.items()}  # Algorithm 2, line 7
        return Adapted(phi, support.x)

    def predict(self, params: Params, state: Adapted, x: Tensor) -> Tensor:
        return with_support(self.net, partial(call, self.net, state.phi), state.support_x, x)

    def adapt_learn2learn(self, support: Examples, n_way: int) -> Callable[[Tensor], Tensor]:
        first_order = self.first_order or not self.training
        with torch.enable_grad():
            task = learn2learn().algorithms.MAML(self.net, lr=self.inner_lr, first_order=first_order).clone()
            for _ in range(self.steps):
                task.adapt(cross_entropy(task(support.x), support.y))
        return partial(with_support, self.net, task, support.x)

    def describe(self) -> dict[str, Any]:
        return {"inner_steps": {"train": self.inner_steps, "test": self.test_inner_steps}, "inner_lr": self.inner_lr}
