from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from metarun.algos.learner import Classifier, EpisodicLearner, with_support
from metarun.algos.maml import Adapted
from metarun.functional import Params, call, gradient, within
from metarun.types import Batch, Examples, Metrics


class Reptile(EpisodicLearner):
    """Learns initial weights by moving them towards the weights that ordinary training on each task ends with.

    The outer step hands theta - phi, averaged over tasks, to the outer optimizer as the gradient: SGD with a
    learning rate falling linearly from 1 to 0 is the paper's update. The inner loop is Adam without first
    moment on minibatches of the support set. The paper's code carries Adam's second moment from task to task;
    here each task starts afresh, so that a task's result does not depend on the ones before it.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: from inputs to features [R, out_features].
        n_way: classes of a task, the outputs of the linear head.
        inner_lr: step size of Adam in the inner loop, > 0.
        inner_steps: minibatch steps on a task in meta-training, >= 1.
        test_inner_steps: the same in validation and test.
        inner_batch_size, test_inner_batch_size: images of a minibatch in training and in test; at most S are used.
        inner_beta2: decay of Adam's second moment, in [0, 1).
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
    Reference: Nichol, Achiam, Schulman. On First-Order Meta-Learning Algorithms. 2018. arXiv:1803.02999, Algorithm 2.
    """

    def __init__(
        self,
        backbone: nn.Module,
        n_way: int,
        inner_lr: float,
        inner_steps: int,
        test_inner_steps: int,
        inner_batch_size: int,
        test_inner_batch_size: int,
        inner_beta2: float,
        engine: str,
        task_chunk: int,
    ) -> None:
        super().__init__(engine, task_chunk)
        self.inner_lr, self.inner_beta2 = inner_lr, inner_beta2
        self.inner_steps, self.test_inner_steps = inner_steps, test_inner_steps
        self.inner_batch_size, self.test_inner_batch_size = inner_batch_size, test_inner_batch_size
        self.net = Classifier(backbone, n_way)

    def meta_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        scores = self._scores(batch)
        pull = scores.pop("pull")
        return pull.mean(), {name: score.detach().mean() for name, score in scores.items()}

    def score(self, params: Params, state: Adapted, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        scores = super().score(params, state, output, y)
        if self.training:  # a scalar whose gradient is theta - phi, the direction of Algorithm 2
            theta = within(params, "net")
            pulls = [(value * (value - state.phi[name]).detach()).sum() for name, value in theta.items()]
            scores["pull"] = torch.stack(pulls).sum()
        return scores

    def adapt(self, params: Params, support: Examples, n_way: int) -> Adapted:
        steps = self.inner_steps if self.training else self.test_inner_steps
        size = self.inner_batch_size if self.training else self.test_inner_batch_size
        phi = {name: value.detach() for name, value in within(params, "net").items()}
        second = {name: torch.zeros_like(value) for name, value in phi.items()}
        rows = _minibatches(support.y.shape[0], n_way, size, steps)
        for step in range(steps):
            x, y = support.x[rows[step]], support.y[rows[step]]
            grads = gradient(partial(_loss, self.net, x, y), phi, first_order=True)
            second = {n: self.inner_beta2 * v + (1 - self.inner_beta2) * grads[n].square() for n, v in second.items()}
            correction = 1 - self.inner_beta2 ** (step + 1)
            phi = {n: v - self.inner_lr * grads[n] / ((second[n] / correction).sqrt() + 1e-8) for n, v in phi.items()}
        return Adapted(phi, support.x)

    def predict(self, params: Params, state: Adapted, x: Tensor) -> Tensor:
        return with_support(self.net, partial(call, self.net, state.phi), state.support_x, x)

    def describe(self) -> dict[str, Any]:
        return {"inner_steps": {"train": self.inner_steps, "test": self.test_inner_steps}, "inner_lr": self.inner_lr}


def _loss(net: nn.Module, x: Tensor, y: Tensor, params: Params) -> Tensor:
    return cross_entropy(call(net, params, x), y)


def _minibatches(n_rows: int, n_way: int, size: int, steps: int) -> list[list[int]]:
    """Rows of each step's minibatch: the support set over and over, taken so that classes alternate."""
    k_shot = n_rows // n_way
    order = [c * k_shot + k for k in range(k_shot) for c in range(n_way)]  # rows lie class by class
    size = min(size, n_rows)
    return [[order[(step * size + i) % n_rows] for i in range(size)] for step in range(steps)]
