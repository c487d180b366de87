"""What every method is: a thing that improves theta from a batch of tasks, and scores theta on tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from metarun.core.scores import Directions
from metarun.core.tasks import Metrics, OptimFactory, TaskBatch, TaskSource


class Learner(nn.Module, ABC):
    """All that the runner knows of a method. `train()` and `eval()` tell which of the two uses follows.

    A learner never logs, saves, moves devices or knows its split. Its state is `state_dict()`; the optimizers
    belong to the runner, which checkpoints them. What it may do besides stands in abilities.py.
    """

    kinds: ClassVar[tuple[str, ...]] = ("classification",)
    """What the method can learn: classification, of tasks with classes, regression, of tasks that are functions, or
    gaussian process, where their prior must be known too."""

    needs: ClassVar[tuple[str, ...]] = ("episodes",)
    """The streams that it asks of a source, by the names of the source's methods: `episodes` of tasks, `examples` with
    labels, or others. What a source lacks is told before anything runs."""

    splits: ClassVar[bool] = True
    """Whether processes may share a meta-batch: its loss is a mean over tasks, none of which sees the others."""

    directions: ClassVar[Directions] = {}
    """Whether `higher` or `lower` is better, of scores that are this method's own; of accuracy, return, log_likelihood,
    mse and loss it is known. Checkpoints, searches and comparisons go by it."""

    def build_optims(self, optim: OptimFactory) -> dict[str, Optimizer]:
        """The outer optimizers by name.

        Raises: ValueError if there is nothing to learn.
        """
        parameters = list(self.parameters())
        if not parameters:
            raise ValueError(
                f"{type(self).__name__} learns nothing but its network, which is frozen: set backbone.frozen=false, or "
                "algo=simpleshot run.steps=1 to test the network's own features"
            )
        return {"outer": optim(parameters)}

    def train_stream(self, source: TaskSource, step: int, meta_batch_size: int) -> Iterator[Any]:
        """What outer steps step, step + 1, ... train on: meta-batches, unless a method asks for something else."""
        return source.episodes("train", step * meta_batch_size, meta_batch_size)

    def eval_stream(self, source: TaskSource, split: str, first: int, batch_size: int) -> Iterator[TaskBatch]:
        """The tasks first, first + 1, ... of val or test that it is scored on, `batch_size` at a time."""
        return source.episodes(split, first, batch_size)

    def initial_state(self) -> Any:
        """What an outer step hands to the next one beside theta: a tree of tensors, as of optimizers that are unrolled
        over several outer steps; None for nothing. The run keeps it, also in its checkpoints."""
        return None

    def outer_step(self, state: Any, batch: Any, optims: dict[str, Optimizer]) -> tuple[Any, Metrics]:
        """One outer update, from `state` to the next; a learner without one overrides `meta_step` alone."""
        return state, self.meta_step(batch, optims)

    def meta_step(self, batch: Any, optims: dict[str, Optimizer]) -> Metrics:
        """One outer update: descend `meta_loss`."""
        for optim in optims.values():
            optim.zero_grad(set_to_none=True)
        metrics = self.meta_gradient(batch)
        for optim in optims.values():
            optim.step()
        return metrics

    def meta_gradient(self, batch: Any) -> Metrics:
        """Add the gradient of `meta_loss` to the parameters' own."""
        loss, metrics = self.meta_loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return metrics

    @abstractmethod
    def meta_loss(self, batch: Any) -> tuple[Tensor, Metrics]:
        """The outer objective for what `train_stream` yields, averaged over it, and detached scalars to report."""

    @abstractmethod
    def evaluate(self, batch: Any) -> dict[str, Tensor]:
        """One number per task [B] of each score, `loss` among them; changes nothing."""

    def describe(self) -> dict[str, Any]:
        """Facts of the method that belong beside its numbers, such as inner steps in training and test."""
        return {}
