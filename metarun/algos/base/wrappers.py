"""How learn2learn adapts the methods that it has to a task, in place of their own `adapt` and `predict`.

A method's class names the function that serves it as its attribute `learn2learn`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from metarun.algos.base.inner_loop import InnerLoop
from metarun.algos.base.learn2learn import learn2learn
from metarun.algos.base.network import Network, with_support
from metarun.core.tasks import Examples, Objective
from metarun.ops import context
from metarun.ops.functional import flatten_name

Predictor = Callable[[Tensor], Tensor]
"""Outputs [M, ...] of a task for its query inputs [M, ...]."""

Wrapper = Callable[[Any, Examples], Predictor]
"""From a method and a task's support set to what predicts its queries."""


class Adapting(Protocol):
    """What learn2learn needs of a method with an inner loop."""

    net: Network
    inner: InnerLoop
    objective: Objective
    training: bool

    @property
    def steps(self) -> int: ...


def check_inner(inner: InnerLoop) -> None:
    """Raises: ValueError if the inner loop is more than learn2learn's are."""
    if inner.report_steps:
        raise ValueError("algo.report_steps needs algo.engine=vectorized; set the one, or algo.report_steps=[]")
    if not inner.optimizer.plain:
        raise ValueError(
            "learn2learn's inner loops are plain SGD: algo.inner_optimizer and algo.inner_clip_norm need "
            "algo.engine=vectorized"
        )


def maml(learner: Adapting, support: Examples) -> Predictor:
    return _whole_network(learner, support, learn2learn().algorithms.MAML, lr=learner.inner.lr)


def meta_sgd(learner: Any, support: Examples) -> Predictor:
    rates = [learner.rates[flatten_name(name)] for name, _ in learner.net.named_parameters()]
    return _whole_network(learner, support, learn2learn().algorithms.MetaSGD, lrs=rates)


def meta_curvature(learner: Any, support: Examples) -> Predictor:
    names = iter(dict(learner.net.named_parameters()))

    def transform(parameter: Tensor) -> nn.Module:  # which learn2learn asks for in the network's order
        made: nn.Module = learn2learn().optim.transforms.MetaCurvatureTransform(parameter)
        name = flatten_name(next(names))
        for axis in dict(made.named_parameters()):
            setattr(made, axis, learner.curvature[f"{name}/{axis}"])
        return made

    gbml = learn2learn().algorithms.GBML
    return _whole_network(learner, support, gbml, transform=transform, lr=learner.inner.lr)


def anil(learner: Adapting, support: Examples) -> Predictor:
    body = learner.net.backbone
    with torch.enable_grad():
        head = _maml(learner, learner.net.head)
        features = body(support.x)
        for _ in range(learner.steps):
            head.adapt(learner.objective(head(features), support.y)["loss"])
    return lambda x: head(with_support(body, body, support.x, x))


def boil(learner: Adapting, support: Examples) -> Predictor:
    with torch.enable_grad():
        body = _maml(learner, learner.net.backbone)
        for _ in range(learner.steps):
            body.adapt(learner.objective(learner.net.head(body(support.x)), support.y)["loss"])
    return partial(with_support, learner.net, lambda x: learner.net.head(body(x)), support.x)


def protonet(learner: Any, support: Examples) -> Predictor:
    rows = support.x.shape[0]

    def predict(x: Tensor) -> Tensor:
        with context.support_rows(rows):
            embedded = learner.backbone(torch.cat([support.x, x]))
        kind, scale = {  # what learn2learn calls the distance, and what divides it
            "euclidean": ("euclidean", None),
            "mean_squared": ("euclidean", embedded.shape[-1]),
            "cosine": ("cosine", learner.temperature),
        }[learner.distance]
        classifier = learn2learn().nn.PrototypicalClassifier(embedded[:rows], support.y, distance=kind)
        logits: Tensor = classifier(embedded[rows:])
        return logits if scale is None else logits / scale

    return predict


def _maml(learner: Adapting, module: nn.Module) -> Any:
    """`module` in learn2learn's MAML, a copy for one task."""
    maml = learn2learn().algorithms.MAML
    return maml(module, lr=learner.inner.lr, first_order=_first_order(learner)).clone()


def _whole_network(learner: Adapting, support: Examples, wrapper: Callable[..., Any], **settings: Any) -> Predictor:
    """After the inner loop of the whole network in one of learn2learn's wrappers."""
    with torch.enable_grad():
        task = wrapper(learner.net, first_order=_first_order(learner), **settings).clone()
        for _ in range(learner.steps):
            task.adapt(learner.objective(task(support.x), support.y)["loss"])
    return partial(with_support, learner.net, task, support.x)


def _first_order(learner: Adapting) -> bool:
    return learner.inner.first_order or not learner.training
