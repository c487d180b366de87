"""Successive stages of a run, each with its own stream, objective and optimizers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from torch import Tensor
from torch.optim import Optimizer

from metarun.algos.base.learner import Learner
from metarun.core.tasks import Metrics, TaskSource


@dataclass(frozen=True)
class Stage:
    """The outer steps of one part of a run.

    Args:
        steps: outer steps of the stage; the last stage takes all remaining ones.
        stream: as `Learner.train_stream`, its steps counted from the first of the stage.
        loss: as `Learner.meta_loss`.
        gradient: as `Learner.meta_gradient`; None for the gradient of `loss`.
        enter: called with the optimizers before the first outer step of the stage.
        optims: names of the optimizers that take a step; None for all. A schedule moves with its optimizer.
    """

    steps: int
    stream: Callable[[TaskSource, int, int], Iterator[Any]]
    loss: Callable[[Any], tuple[Tensor, Metrics]]
    gradient: Callable[[Any], Metrics] | None = None
    enter: Callable[[Mapping[str, Optimizer]], None] | None = None
    optims: tuple[str, ...] | None = None


class StageBatch(NamedTuple):
    """The batch of an outer step, the number of its stage, and whether this is the stage's first step."""

    drawn: Any
    stage: int
    first: bool


class Staged(Learner):
    """A method that trains in stages. It must be the first base of a learner, before those that its stages use."""

    @abstractmethod
    def stages(self) -> Sequence[Stage]:
        """Return the stages in order, at least one."""

    def train_stream(self, source: TaskSource, step: int, meta_batch_size: int) -> Iterator[StageBatch]:
        stages, begin = self.stages(), 0
        for number, stage in enumerate(stages):
            left = None if number == len(stages) - 1 else begin + stage.steps - step
            if left is None or left > 0:
                for drawn in islice(stage.stream(source, step - begin, meta_batch_size), left):
                    yield StageBatch(drawn, number, step == begin)
                    step += 1
            begin += stage.steps

    def meta_step(self, batch: Any, optims: dict[str, Optimizer]) -> Metrics:
        stage = self._stage_of(batch)
        if batch.first and stage.enter:
            stage.enter(optims)
        working = optims if stage.optims is None else {name: optims[name] for name in stage.optims}
        self.zero_grad(set_to_none=True)
        return super().meta_step(batch, working)

    def meta_loss(self, batch: Any) -> tuple[Tensor, Metrics]:
        return self._stage_of(batch).loss(batch.drawn)

    def meta_gradient(self, batch: Any) -> Metrics:
        gradient = self._stage_of(batch).gradient
        return gradient(batch.drawn) if gradient else Learner.meta_gradient(self, batch)

    def _stage_of(self, batch: StageBatch) -> Stage:
        return self.stages()[batch.stage]
