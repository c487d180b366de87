"""Adapt methods to a task by learn2learn, in place of their own `adapt` and `predict`.

The attribute `learn2learn` of a method's class is the function for this method.
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
"""Predicts outputs [M, ...] of a task for its query inputs [M, ...]."""

Wrapper = Callable[[Any, Examples], Predictor]
"""Adapts a method to a task's support set, and returns a predictor for its queries."""


class Adapting(Protocol):
    """The attributes of a method with an inner loop that learn2learn needs."""

    net: Network
    inner: InnerLoop
    objective: Objective
    training: bool

    @property
    def steps(self) -> int: ...


def check_inner(inner: InnerLoop) -> None:
    """Raise ValueError if learn2learn's inner loops cannot do what this one does."""
    if inner.report_steps:
        raise ValueError("algo.report_steps needs algo.engine=vectorized: set it, or set algo.report_steps=[]")
    if not inner.optimizer.plain:
        raise ValueError(
            "learn2learn's inner loops are plain SGD: algo.inner_optimizer and algo.inner_clip_norm need "
            "algo.engine=vectorized"
        )


def maml(learner: Adapting, support: Examples) -> Predictor:
    return _adapt_whole_network(learner, support, learn2learn().algorithms.MAML, lr=learner.inner.lr)


def meta_sgd(learner: Any, support: Examples) -> Predictor:
    rates = [learner.rates[flatten_name(name)] for name, _ in learner.net.named_parameters()]
    return _adapt_whole_network(learner, support, learn2learn().algorithms.MetaSGD, lrs=rates)


def meta_curvature(learner: Any, support: Examples) -> Predictor:
    names = iter(dict(learner.net.named_parameters()))

    def transform(parameter: Tensor) -> nn.Module | None:  # learn2learn calls this in the network's order
        package, name = learn2learn(), flatten_name(next(names))
        made: nn.Module
        if learner.own:
            return dict(learner.transforms).get(name)
        if learner.factors == "kronecker":
            made = package.optim.transforms.KroneckerTransform(package.nn.KroneckerLinear)(parameter)
            holder = made.get_submodule("transform")
        else:
            made = holder = package.optim.transforms.MetaCurvatureTransform(parameter)
        for axis in dict(holder.named_parameters()):
            setattr(holder, axis, learner.curvature[f"{name}/{axis}"])
        return made

    gbml = learn2learn().algorithms.GBML
    return _adapt_whole_network(learner, support, gbml, transform=transform, lr=learner.inner.lr)


def anil(learner: Adapting, support: Examples) -> Predictor:
    body = learner.net.backbone
    with torch.enable_grad():
        head = _wrap_in_maml(learner, learner.net.head)
        features = body(support.x)
        for _ in range(learner.steps):
            head.adapt(learner.objective(head(features), support.y)["loss"])
    return lambda x: head(with_support(body, body, support.x, x))


def boil(learner: Adapting, support: Examples) -> Predictor:
    with torch.enable_grad():
        body = _wrap_in_maml(learner, learner.net.backbone)
        for _ in range(learner.steps):
            body.adapt(learner.objective(learner.net.head(body(support.x)), support.y)["loss"])
    return partial(with_support, learner.net, lambda x: learner.net.head(body(x)), support.x)


def protonet(learner: Any, support: Examples) -> Predictor:
    rows = support.x.shape[0]

    def predict(x: Tensor) -> Tensor:
        with context.support_rows(rows):
            embedded = learner.backbone(torch.cat([support.x, x]))
        kind, scale = {  # learn2learn's name of the distance, and its divisor
            "euclidean": ("euclidean", None),
            "mean_squared": ("euclidean", embedded.shape[-1]),
            "cosine": ("cosine", learner.temperature),
        }[learner.distance]
        classifier = learn2learn().nn.PrototypicalClassifier(embedded[:rows], support.y, distance=kind)
        logits: Tensor = classifier(embedded[rows:])
        return logits if scale is None else logits / scale

    return predict


def _wrap_in_maml(learner: Adapting, module: nn.Module) -> Any:
    """Wrap `module` in learn2learn's MAML, and return a copy for one task."""
    maml = learn2learn().algorithms.MAML
    return maml(module, lr=learner.inner.lr, first_order=_is_first_order(learner)).clone()


def _adapt_whole_network(
    learner: Adapting, support: Examples, wrapper: Callable[..., Any], **settings: Any
) -> Predictor:
    """Run the inner loop of the whole network in one of learn2learn's wrappers, and return its predictor."""
    with torch.enable_grad():
        task = wrapper(learner.net, first_order=_is_first_order(learner), **settings).clone()
        for _ in range(learner.steps):
            task.adapt(learner.objective(task(support.x), support.y)["loss"])
    return partial(with_support, learner.net, task, support.x)


def _is_first_order(learner: Adapting) -> bool:
    return learner.inner.first_order or not learner.training
