from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NotRequired, TypedDict

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from metarun.algos.base.episodic import EpisodicLearner
from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.learner import Learner
from metarun.core import objectives
from metarun.core.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, ShareBelowOne
from metarun.core.tasks import Examples, ExampleSource, Metrics, TaskSource
from metarun.ops import context, norm
from metarun.ops.functional import Params, gradient


class Pretraining(EpisodicLearner):
    """A method that trains a classifier of all training classes on single images; tasks come in validation and test.

    It is one of the bases of a learner with a `backbone` and a `classifier` from its embeddings to logits of all
    training classes. An outer step takes `meta_batch_size` images.
    """

    shareable = False  # BatchNorm takes its statistics from all images of an outer step
    backbone: nn.Module
    classifier: nn.Module

    label_smoothing: float = 0.0
    """The part of a label that is spread evenly over all training classes. Szegedy et al. CVPR 2016. arXiv:1512.00567,
    section 7."""

    needs: ClassVar[tuple[str, ...]] = ("episodes", "examples")
    trains_on: ClassVar[tuple[str, ...]] = ("examples",)
    only_trained: tuple[str, ...] = ("classifier.",)

    def train_stream(self, source: TaskSource, step: int, meta_batch_size: int) -> Iterator[Any]:
        assert isinstance(source, ExampleSource), "a source that has train_classes has examples"
        return source.examples("train", step * meta_batch_size, meta_batch_size)

    meta_gradient = Learner.meta_gradient

    def meta_loss(self, batch: Examples) -> tuple[Tensor, Metrics]:
        logits = self.classifier(self.embed(batch.x))
        scores = objectives.classification(logits, batch.y)
        if self.label_smoothing:
            scores["loss"] = cross_entropy(logits, batch.y, label_smoothing=self.label_smoothing)
        return scores["loss"], {name: score.detach() for name, score in scores.items()}

    def embed(self, x: Tensor) -> Tensor:
        """Embed a training batch: [R, D]."""
        return embed_training(self.backbone, x)


def embed_training(backbone: nn.Module, x: Tensor) -> Tensor:
    """Embed a training batch [R, ...]: [R, D]. Running averages of BatchNorm follow its statistics."""
    with context.recording() as statistics:
        features: Tensor = backbone(x)
    norm.update_running(backbone, statistics)
    return features


class FitSettings(TypedDict):
    """Settings of methods that fit weights to a task's support set, only in validation and test.

    Keys:
        inner_lr: step size of the fit, > 0.
        test_inner_steps: its steps, >= 0.
        inner_weight_decay: pulls the weights to zero, >= 0.
        engine, task_chunk: how a batch of tasks is computed, see EpisodicLearner.
    """

    inner_lr: PositiveFloat
    test_inner_steps: NonNegativeInt
    inner_weight_decay: NonNegativeFloat
    engine: Engine
    task_chunk: NonNegativeInt


class SmoothingSettings(TypedDict):
    """A setting of methods that train a classifier.

    Keys:
        label_smoothing: part of a training label that is spread over all training classes.
    """

    label_smoothing: NotRequired[ShareBelowOne]


class PretrainingSettings(SmoothingSettings, FitSettings):
    """Settings of methods that train a classifier, and fit weights to a task's support set."""


@dataclass(frozen=True)
class Fit:
    """Fits weights to a task by gradient descent with weight decay."""

    lr: float
    steps: int
    weight_decay: float

    @classmethod
    def of(cls, settings: FitSettings) -> Fit:
        return cls(settings["inner_lr"], settings["test_inner_steps"], settings["inner_weight_decay"])

    def __call__(self, loss: Callable[[Params], Tensor], start: Params, kept: Container[str] = ()) -> Params:
        """Return the weights after the fit of `loss` from `start`; they are constants for outer derivatives.

        Those whose names are in `kept` do not decay.
        """
        return fit_weights(loss, start, self.steps, self.lr, self.weight_decay, kept)

    def describe(self) -> dict[str, Any]:
        """Return facts to report beside a method's scores."""
        return {"inner_steps": {"train": 0, "test": self.steps}, "inner_lr": self.lr}


def fit_weights(
    loss: Callable[[Params], Tensor],
    params: Params,
    steps: int,
    lr: float,
    weight_decay: float,
    kept: Container[str] = (),
) -> Params:
    """Return `params` after gradient descent with weight decay, but for those `kept` from it; all are constants for
    outer derivatives."""
    decay = {name: 0.0 if name in kept else weight_decay for name in params}
    for _ in range(steps):
        grads = gradient(loss, params, first_order=True)
        params = {name: value - lr * (grads[name] + decay[name] * value) for name, value in params.items()}
    return params
