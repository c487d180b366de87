from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Unpack

import torch
from torch import Tensor, nn

from metarun.algos.base.inner_loop import InnerLoop, InnerSettings
from metarun.algos.base.network import Network, with_support
from metarun.algos.base.own_gradient import OwnGradientLearner, pull
from metarun.algos.gradient.maml import Adapted
from metarun.core.ranges import CountsWith, PositiveInt, ShareBelowOne, UpTo
from metarun.core.tasks import Examples, Objective
from metarun.ops import context
from metarun.ops.functional import Params, call, gradient, within


class ReptileSettings(InnerSettings):
    """Settings of Reptile, and of the methods that change it.

    Keys: those of InnerSettings, of which inner_steps counts minibatches, and
        inner_batch_size, test_inner_batch_size: examples of a minibatch in training and in test; at most S are used.
        inner_beta2: decay of Adam's second moment, in [0, 1).
    """

    inner_batch_size: Annotated[PositiveInt, UpTo("support examples of a training task")]
    test_inner_batch_size: Annotated[PositiveInt, UpTo("support examples of a test task")]
    inner_beta2: Annotated[ShareBelowOne, CountsWith("inner_optimizer", ("adam",))]


class Reptile(OwnGradientLearner):
    """Learns initial weights by moving them towards the final weights of ordinary training on each task.

    The outer optimizer gets theta - phi, averaged over tasks, as its gradient. SGD with a learning rate that falls
    linearly from 1 to 0 is the paper's update. By default the inner loop is Adam without first moment, on minibatches
    of the support set. The paper's code carries Adam's second moment from task to task; here each task starts anew, so
    that its result does not depend on earlier tasks.

    Shapes: support.x [S, ...], support.y [S] int64 in 0..N-1 or [S, D_out]; predicts [M, outputs].
    Args:
        backbone: from inputs to features [R, out_features].
        outputs: size of the linear head.
        objective: its `loss` is descended in the inner loop.
        settings: see ReptileSettings.
    Reference: Nichol, Achiam, Schulman. On First-Order Meta-Learning Algorithms. 2018. arXiv:1803.02999.
    """

    kinds = ("classification", "regression")
    recordable = True

    def __init__(
        self, backbone: nn.Module, outputs: int, objective: Objective, **settings: Unpack[ReptileSettings]
    ) -> None:
        super().__init__(settings["engine"], settings["task_chunk"], objective)
        settings.setdefault("inner_optimizer", "adam")
        self.inner = InnerLoop.of(settings, beta2=settings["inner_beta2"])
        self.batch_size, self.test_batch_size = settings["inner_batch_size"], settings["test_inner_batch_size"]
        self.net = Network(backbone, outputs)

    def score(self, params: Params, state: Adapted, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        scores = super().score(params, state, output, y)
        if self.training:
            theta = within(params, "net")
            scores["pull"] = pull(theta, {name: value - state.phi[name] for name, value in theta.items()})
        return scores

    def adapt(self, params: Params, support: Examples, n_way: int) -> Adapted:
        steps = self.inner.steps_in(self.training)
        size = self.batch_size if self.training else self.test_batch_size
        theta = {name: value.detach() for name, value in within(params, "net").items()}
        phi, memory = theta, self.inner.optimizer.start(theta)
        rows = _make_minibatches(support.y, n_way, size, steps)
        for step in range(steps):
            minibatch = Examples(support.x[rows[step]], support.y[rows[step]])
            grads = gradient(self.inner_loss(theta, minibatch), phi, first_order=True)
            phi, memory = self.inner.optimizer.step(phi, grads, memory, step, lambda _: self.inner.lr)
        return Adapted(phi, support, {})

    def inner_loss(self, theta: Params, minibatch: Examples) -> Callable[[Params], Tensor]:
        """Return the loss of an inner step, as a function of phi."""
        return lambda phi: self.objective(call(self.net, phi, minibatch.x), minibatch.y)["loss"]

    def predict(self, params: Params, state: Adapted, x: Tensor) -> Tensor:
        return with_support(self.net, partial(call, self.net, state.phi), state.support.x, x)

    def describe(self) -> dict[str, Any]:
        return self.inner.describe()


def _make_minibatches(y: Tensor, n_way: int, size: int, steps: int) -> Tensor:
    """Make the rows of each step's minibatch [steps, size]: the support set again and again, with classes in turn.

    They are made on the device, because a GPU would wait for a copy from the host.
    """
    n_rows, order = y.shape[0], torch.arange(y.shape[0], device=y.device)
    if n_way and context.is_transformed():  # tasks together have equal classes, which lie one after the other
        order = order.view(n_way, -1).T.flatten()
    elif n_way:
        nth = (y[:, None] == y).tril(-1).sum(-1)  # [S], how many of its class come before a row
        order = (nth * n_way + y).argsort()
    size = min(size, n_rows)
    rows: Tensor = order[torch.arange(steps * size, device=y.device) % n_rows].view(steps, size)
    return rows
