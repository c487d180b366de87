"""The base class of all methods: it improves theta by batches of tasks, and scores theta on tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torch.optim import Optimizer

from metarun.core.ranges import CountsWith
from metarun.core.scores import Directions
from metarun.core.tasks import Metrics, OptimFactory, TaskBatch, TaskSource

Answers = Literal["alone", "together", "together, balanced assumed"]
"""How the queries of a task are answered, see Learner."""


class Learner(nn.Module, ABC):
    """All that the runner knows of a method. `train()` and `eval()` tell which of the two uses follows.

    A learner never logs, saves, moves devices or knows its split. Its state is `state_dict()`; the optimizers
    belong to the runner, which checkpoints them. What it may do besides stands in abilities.py.
    """

    kinds: ClassVar[tuple[str, ...]] = ("classification",)
    """The kinds of tasks that the method can learn.

    They are classification for tasks with classes, regression for functions, and gaussian process for functions with a
    known prior.
    """

    needs: ClassVar[tuple[str, ...]] = ("episodes",)
    """The streams that it needs from a source, by the names of the source's methods: `episodes` of tasks, `examples`
    with labels, or others. They are checked before anything runs."""

    trains_on: ClassVar[tuple[str, ...]] = ("episodes",)
    """Those of the streams that its training draws; the others are for tests."""

    shareable: ClassVar[bool] = True
    """Whether processes may share a meta-batch: if its loss is a mean over tasks that do not depend on each other."""

    answers: ClassVar[Answers] = "alone"
    """Whether its head answers each query of a task `alone`, or all of them `together`, each by the others too; then
    also whether it assumes that each class has as many. BatchNorm, which may see all queries as well, is another
    matter, which the setting `bn` decides."""

    many_shapes: ClassVar[bool] = False
    """Whether the tasks of a batch may differ in their ways and shots: then it is a MixedBatch."""

    optim_counts_with: ClassVar[CountsWith | None] = None
    """A setting of the method, and its values with which there is an outer optimizer; None if there always is one."""

    directions: ClassVar[Directions] = {}
    """Whether `higher` or `lower` is better, for the method's own scores; it is known for accuracy, return,
    log_likelihood, mse and loss. Checkpoints, searches and comparisons use it."""

    only_trained: tuple[str, ...] = ()
    """Beginnings of the names of weights that no test uses, such as a classifier of the training classes."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if isinstance(cls.needs, str):
            raise ValueError(f"{cls.__name__}: needs is a tuple of names, so write needs = ({cls.needs!r},)")
        for score, direction in cls.directions.items():
            if direction not in ("higher", "lower"):
                raise ValueError(f"{cls.__name__}: directions[{score!r}]={direction!r} is neither 'higher' nor 'lower'")

    def build_optims(self, optim: OptimFactory) -> dict[str, Optimizer]:
        """Build the outer optimizers, by name.

        Raises: ValueError if there is nothing to learn.
        """
        parameters = list(self.parameters())
        if not parameters:
            raise ValueError(
                f"{type(self).__name__} learns nothing but its network, which is frozen: set backbone.frozen=false, or "
                "a rate above 0, or run.steps=0 to test the network's own features"
            )
        return {"outer": optim(parameters)}

    def train_stream(self, source: TaskSource, step: int, meta_batch_size: int) -> Iterator[Any]:
        """Yield the batches of the outer steps step, step + 1, ...: meta-batches, unless a method needs others."""
        return source.episodes("train", step * meta_batch_size, meta_batch_size)

    def eval_stream(self, source: TaskSource, split: str, first: int, batch_size: int) -> Iterator[TaskBatch]:
        """Yield the tasks first, first + 1, ... of val or test for its scores, `batch_size` at a time."""
        return source.episodes(split, first, batch_size)

    def initial_state(self) -> Any:
        """Return the first state that outer steps pass on beside theta: a tree of tensors, or None for none.

        Optimizers that are unrolled over several outer steps need one. The run saves it in its checkpoints.
        """
        return None

    def outer_step(self, state: Any, batch: Any, optims: dict[str, Optimizer]) -> tuple[Any, Metrics]:
        """Make one outer update, from `state` to the next state; a learner without state overrides only `meta_step`."""
        return state, self.meta_step(batch, optims)

    def meta_step(self, batch: Any, optims: dict[str, Optimizer]) -> Metrics:
        """Make one outer update: descend `meta_loss`."""
        for optim in optims.values():
            optim.zero_grad(set_to_none=True)
        metrics = self.meta_gradient(batch)
        for optim in optims.values():
            optim.step()
        return metrics

    def meta_gradient(self, batch: Any) -> Metrics:
        """Add the gradient of `meta_loss` to the gradients of the parameters."""
        loss, metrics = self._check_loss(self.meta_loss(batch))
        loss.backward()  # type: ignore[no-untyped-call]
        return metrics

    def _check_loss(self, found: Any) -> tuple[Tensor, Metrics]:
        """Return what `meta_loss` found. Raises: ValueError that says what an author has to return instead."""
        name = f"{type(self).__name__}.meta_loss"
        if not isinstance(found, tuple) or len(found) != 2 or "loss" not in found[1]:
            raise ValueError(f"{name} must return a scalar and metrics, as in: return loss, {{'loss': loss.detach()}}")
        loss: Tensor = found[0]
        if loss.ndim:
            raise ValueError(f"{name} returns a loss of shape {list(loss.shape)}; it must be a scalar: take its mean")
        if not loss.requires_grad:
            raise ValueError(f"{name} returns a loss without a gradient: it was detached, or depends on no weight")
        return loss, found[1]

    @abstractmethod
    def meta_loss(self, batch: Any) -> tuple[Tensor, Metrics]:
        """Return the mean outer objective of a batch from `train_stream`, and detached scalars to report."""

    @abstractmethod
    def evaluate(self, batch: Any) -> dict[str, Tensor]:
        """Return each score by name, `loss` among them, with a number for each task [B]. Changes nothing."""

    def describe(self) -> dict[str, Any]:
        """Return facts to report beside the method's scores, such as inner steps in training and test."""
        return {}
