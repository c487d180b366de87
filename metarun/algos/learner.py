"""What every method is: a thing that improves theta from a batch of tasks, and scores theta on tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from metarun import norm, objectives
from metarun.algos.l2l import choose_engine
from metarun.functional import Params
from metarun.types import Batch, Examples, Metrics, Objective, OptimFactory, Prediction, TaskSource

CPU_TASK_INPUTS = 16 * 28 * 28
"""Input numbers in a task above which tasks run one by one on a CPU (5-way 1-shot at 28x28: 1 query yes, 5 no)."""


class Learner(nn.Module, ABC):
    """All that the runner knows of a method. `train()` and `eval()` tell which of the two uses follows.

    A learner never logs, saves, moves devices or knows its split. Its state is `state_dict()`; the optimizers
    belong to the runner, which checkpoints them.
    """

    engine = "plain"
    """How a meta-batch is computed; printed, and kept in the results."""

    kinds: ClassVar[tuple[str, ...]] = ("classification",)
    """What the method can learn: classification, of tasks with classes, regression, of tasks that are functions, or
    gaussian process, where their prior must be known too."""

    splits: ClassVar[bool] = True
    """Whether processes may share a meta-batch: its loss is a mean over tasks, none of which sees the others."""

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

    def meta_step(self, batch: Any, optims: dict[str, Optimizer]) -> Metrics:
        """One outer update: descend `meta_loss`."""
        for optim in optims.values():
            optim.zero_grad(set_to_none=True)
        loss, metrics = self.meta_loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        for optim in optims.values():
            optim.step()
        return metrics

    @abstractmethod
    def meta_loss(self, batch: Any) -> tuple[Tensor, Metrics]:
        """The outer objective for what `train_stream` yields, averaged over it, and detached scalars to report."""

    @abstractmethod
    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        """One number per task [B] of each score, `loss` among them; changes nothing."""

    def predictions(self, batch: Batch) -> Prediction | None:
        """The query points of functions as they are predicted, for a picture; None where there is nothing to draw."""
        return None

    def describe(self) -> dict[str, Any]:
        """Facts of the method that belong beside its numbers, such as inner steps in training and test."""
        return {}


class EpisodicLearner(Learner):
    """A method written as what happens in ONE task: adapt to the support set, predict the query set.

    This class runs the whole meta-batch, the same way in training and in evaluation. The engine `vectorized`
    runs tasks together under torch.func.vmap; `learn2learn` loops over tasks through learn2learn's wrappers.

    Args:
        engine: `vectorized`, `learn2learn`, or `auto` for the faster one.
        task_chunk: tasks that `vectorized` runs at once, 1 for a plain loop, 0 to choose by size and device.
        objective: what a task's outputs are scored by.
    """

    def __init__(self, engine: str, task_chunk: int, objective: Objective = objectives.classification) -> None:
        super().__init__()
        self.engine = choose_engine(engine)
        if self.engine == "learn2learn" and type(self).adapt_learn2learn is EpisodicLearner.adapt_learn2learn:
            raise ValueError(f"{type(self).__name__} has no learn2learn engine; set algo.engine=vectorized")
        self.task_chunk, self.objective = task_chunk, objective

    @abstractmethod
    def adapt(self, params: Params, support: Examples, n_way: int) -> Any:
        """The inner loop: what the task's support set makes of theta (`params`), as a tree of tensors."""

    @abstractmethod
    def predict(self, params: Params, state: Any, x: Tensor) -> Tensor:
        """Outputs [M, ...] for the query inputs x [M, ...] under what `adapt` returned."""

    def score(self, params: Params, state: Any, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The objective of one task as scalars by name; `loss` is what training descends."""
        return self.objective(output, y)

    def extra_scores(self, params: Params, state: Any, query: Examples) -> dict[str, Tensor]:
        """Further scores of one task: in validation and test named as `accuracy@0`."""
        return {}

    def adapt_learn2learn(self, support: Examples, n_way: int) -> Callable[[Tensor], Tensor]:
        """`adapt` through learn2learn's wrapper; returns the task's predictor. Only for methods learn2learn has."""
        raise AssertionError("the constructor refuses this engine")

    def meta_loss(self, batch: Any) -> tuple[Tensor, Metrics]:
        scores = self._scores(batch)
        return scores["loss"].mean(), {name: score.detach().mean() for name, score in scores.items()}

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            return {name: score.detach() for name, score in self._scores(batch).items()}

    def predictions(self, batch: Batch) -> Prediction | None:
        if batch.n_way or self.engine == "learn2learn":
            return None
        with torch.no_grad():
            means = []
            for support_x, support_y, x in zip(*batch.support, batch.query.x, strict=True):
                with norm.adapting():
                    state = self.adapt(_parameters(self), Examples(support_x, support_y), batch.n_way)
                with norm.recording():
                    means.append(self.predict(_parameters(self), state, x))
        return Prediction(torch.stack(means), None)

    def chunk(self, batch: Batch) -> int:
        """Tasks to run at once. Small tasks gain from company; on a CPU, large ones run faster one by one."""
        if self.engine == "learn2learn":
            return 1
        if self.task_chunk:
            return self.task_chunk
        inputs_per_task = (batch.support.x.numel() + batch.query.x.numel()) // batch.n_tasks
        return 1 if batch.query.x.device.type == "cpu" and inputs_per_task > CPU_TASK_INPUTS else batch.n_tasks

    def _scores(self, batch: Batch) -> dict[str, Tensor]:
        """Each score of each task [B]: the one path of training and evaluation."""
        size = self.chunk(batch)
        chunks = [batch.tasks(first, first + size) for first in range(0, batch.n_tasks, size)]
        done = [self._one(chunk) if chunk.n_tasks == 1 else self._together(chunk) for chunk in chunks]
        if self.training and norm.running_layers(self):
            norm.update_running(self, [_join(layer) for layer in zip(*(d.statistics for d in done), strict=True)])
        return {name: torch.cat([d.scores[name] for d in done]) for name in done[0].scores}

    def _together(self, batch: Batch) -> Scored:
        params = _parameters(self)

        def task(support: Examples, query: Examples) -> Scored:
            return self._task(params, support, query, batch.n_way)

        with norm.under_transform():
            scored: Scored = torch.func.vmap(task, randomness="different")(batch.support, batch.query)
        return scored

    def _one(self, batch: Batch) -> Scored:
        support, query = (Examples(side.x[0], side.y[0]) for side in (batch.support, batch.query))
        scored = self._task(_parameters(self), support, query, batch.n_way)
        return Scored({name: score[None] for name, score in scored.scores.items()}, scored.statistics)

    def _task(self, params: Params, support: Examples, query: Examples, n_way: int) -> Scored:
        state = None
        with norm.adapting():
            if self.engine == "learn2learn":
                predictor = self.adapt_learn2learn(support, n_way)
            else:
                state = self.adapt(params, support, n_way)
                predictor = partial(self.predict, params, state)
        with norm.recording() as statistics:
            output = predictor(query.x)
        scores = self.score(params, state, output, query.y)
        if self.engine != "learn2learn":  # which has no state to hand on
            scores |= self.extra_scores(params, state, query)
        return Scored(scores, statistics)


class Network(nn.Module):
    """A backbone and a linear head with so many `outputs`: logits of classes, or values of a function."""

    def __init__(self, backbone: nn.Module, outputs: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head: nn.Module = nn.Linear(int(backbone.out_features), outputs)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.backbone(x))
        return out


class Scored(NamedTuple):
    """Scores by name, and the batch statistics that `bn=running` layers saw while predicting."""

    scores: dict[str, Tensor]
    statistics: list[tuple[Tensor, Tensor]]


def with_support(module: nn.Module, forward: Callable[[Tensor], Tensor], support_x: Tensor, x: Tensor) -> Tensor:
    """`forward(x)` through `module`, normalised by the support set's statistics where `bn=support` asks for it."""
    if not norm.uses_support_statistics(module):
        return forward(x)
    rows = support_x.shape[0]
    with norm.support_rows(rows):
        return forward(torch.cat([support_x, x]))[rows:]


def _parameters(module: nn.Module) -> Params:
    return {name: value for name, value in module.named_parameters()}


def _join(layer: tuple[tuple[Tensor, Tensor], ...]) -> tuple[Tensor, Tensor]:
    means, variances = zip(*layer, strict=True)
    channels = means[0].shape[-1]
    return torch.cat([m.reshape(-1, channels) for m in means]), torch.cat([v.reshape(-1, channels) for v in variances])
