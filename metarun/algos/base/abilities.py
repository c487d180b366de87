"""What some learners can do besides learning. Each is known by its methods; a learner has those that fit it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from metarun.core.tasks import Batch, Prediction


@runtime_checkable
class RunsOnEngines(Protocol):
    """A learner whose tasks are computed in one of several ways."""

    engine: str
    """The way's name, kept in the results."""

    def describe_engine(self, batch: Batch, n_tasks: int) -> str:
        """How so many tasks like those of the batch are computed, in words."""
        ...


@runtime_checkable
class Recordable(Protocol):
    """A learner whose outer steps and tests can be recorded, see metarun/ops/replay.py."""

    recordable: bool
    """Whether this one can be: what it does in a task depends on tensors alone, and on these only by their shapes."""

    def record(self, backend: str, after: int = 0) -> None:
        """From now on replay what was recorded, once it has been called `after` times."""
        ...


@runtime_checkable
class EncodesInputs(Protocol):
    """A learner whose tests first encode each input by itself, which can then be done once for all tasks."""

    def input_encoder(self) -> Callable[[Tensor], Tensor] | None:
        """The function of inputs [R, ...] that tests begin with; None if more than one input decides its value."""
        ...

    def encoded(self) -> AbstractContextManager[None]:
        """Inside, `evaluate` takes what `input_encoder` has made of the inputs."""
        ...


@runtime_checkable
class Predicting(Protocol):
    """A learner whose predictions of functions can be drawn."""

    def predictions(self, batch: Batch) -> Prediction | None:
        """The query points of the batch's functions as it predicts them; None where there is nothing to draw."""
        ...


@runtime_checkable
class Drawing(Protocol):
    """A learner that draws its own pictures."""

    def draw(self, batch: Any) -> Mapping[str, Any]:
        """Pictures (of Pillow's) by name, of a batch that it is tested on: of samples that it makes, for instance."""
        ...
