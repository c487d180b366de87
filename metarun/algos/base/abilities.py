"""Abilities of some learners besides learning. A learner has an ability if it has its methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from metarun.core.tasks import Batch, Examples, Prediction


@runtime_checkable
class RunsOnEngines(Protocol):
    """A learner that can compute tasks in several ways."""

    engine: str
    """The name of the way, for the results."""

    def describe_engine(self, batch: Batch, n_tasks: int) -> str:
        """Describe how so many tasks like those of the batch are computed."""
        ...


@runtime_checkable
class Recordable(Protocol):
    """A learner whose outer steps and tests can be recorded, see metarun/ops/replay.py."""

    recordable: bool
    """Whether this learner can be recorded: its decisions in a task depend on nothing but the shapes of tensors."""

    def record(self, backend: str, after: int = 0) -> None:
        """Record each computation after `after` calls, and replay it from then on."""
        ...


@runtime_checkable
class HoldsNetwork(Protocol):
    """A learner that can train while its network stays as it is."""

    def hold_network(self) -> None:
        """Freeze the network if embeddings then are the same in training and in tests."""
        ...


@runtime_checkable
class EncodesInputs(Protocol):
    """A learner whose tests first encode each input by itself, so that it can be encoded once for all tasks."""

    def input_encoder(self) -> Callable[[Tensor], Tensor] | None:
        """Return the encoder of inputs [R, ...]; None if an input's encoding depends on other inputs."""
        ...

    def input_network(self) -> nn.Module:
        """Return the network that the encoder is."""
        ...

    def prepare_encoded(self, encoded: Tensor) -> Tensor:
        """Return what `evaluate` takes encoded inputs [R, ...] as: what a method does with each of them by itself."""
        ...

    def encoded(self) -> AbstractContextManager[None]:
        """Inside, `evaluate` expects inputs that `input_encoder` has encoded and `prepare_encoded` prepared."""
        ...


@runtime_checkable
class AdaptsToTask(Protocol):
    """A learner whose outputs for the queries of a task can be asked for, as someone who uses a trained model does."""

    def adapt_to(self, support: Examples, n_way: int, **facts: Tensor) -> Callable[[Tensor], Tensor]:
        """Adapt to the support set of one task, x [S, ...], and to what else is known of it, as in `Batch.side`.

        Returns: what predicts outputs [M, ...] for query inputs [M, ...]: logits of n_way classes, or values.
        """
        ...


@runtime_checkable
class LearnsInTurn(Protocol):
    """A learner of tasks that come one after the other: it learns each from its own examples alone."""

    def start_stream(self, n_classes: int) -> Any:
        """Return what is known before the first task of a stream that will have so many classes."""
        ...

    def learn_task(self, state: Any, examples: Examples, classes: range) -> Any:
        """Return what is known after a task with these classes of the stream; x [S, ...], y [S] in `classes`."""
        ...

    def answer_task(self, state: Any, x: Tensor) -> Tensor:
        """Return logits of all the stream's classes [R, n_classes]; those of classes to come are not looked at."""
        ...


@runtime_checkable
class Predicting(Protocol):
    """A learner that predicts functions, so that the predictions can be drawn."""

    def predictions(self, batch: Batch) -> Prediction | None:
        """Return predictions for the query points of the batch's functions; None if there is nothing to draw."""
        ...


@runtime_checkable
class Drawing(Protocol):
    """A learner that draws its own pictures, of the first test tasks: a few, or as many as it has as `tasks_drawn`."""

    def draw(self, batch: Any) -> Mapping[str, Any]:
        """Return Pillow images by name for a test batch, for instance of generated samples."""
        ...
