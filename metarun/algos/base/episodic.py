from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from metarun.algos.base.chunks import MAX_CPU_NUMBERS, choose_tasks_at_once
from metarun.algos.base.learn2learn import choose_engine
from metarun.algos.base.learner import Learner
from metarun.algos.base.scored import Scored, join_statistics
from metarun.algos.base.wrappers import Predictor, Wrapper
from metarun.core import objectives
from metarun.core.batches import MixedBatch
from metarun.core.tasks import Batch, Examples, Metrics, Objective, Prediction
from metarun.ops import context, norm
from metarun.ops.functional import Params
from metarun.ops.replay import Recorder

log = logging.getLogger(__name__)


class EpisodicLearner(Learner):
    """A method that is written for ONE task: adapt to the support set, then predict the query set.

    This class runs the whole meta-batch, the same way in training and in evaluation. The engine `vectorized`
    runs tasks together under torch.func.vmap; `learn2learn` loops over tasks through learn2learn's wrappers.

    Args:
        engine: `vectorized`, `learn2learn`, or `auto` for the faster one.
        task_chunk: tasks that `vectorized` runs at once; 0 chooses by size and device; 1 is a plain loop on a CPU, and
            the same as 0 on a GPU.
        objective: scores the outputs of a task.
    """

    recordable = False
    """Whether the decisions in a task depend on nothing but the shapes of its tensors. Each class declares it anew,
    because a subclass may differ."""

    many_shapes: ClassVar[bool] = True

    asks: ClassVar[tuple[str, ...]] = ()
    """Facts about a task, of those in `Batch.side`, that `adapt` takes by their names where the source knows them."""

    goal: ClassVar[str] = "loss"
    """The score that training descends."""

    learn2learn: ClassVar[Wrapper | None] = None
    """Adapts to a task on the engine learn2learn, see wrappers.py. Each class declares it anew."""

    def __init__(self, engine: str, task_chunk: int, objective: Objective = objectives.classification) -> None:
        super().__init__()
        self.recorder: Recorder | None = None
        self.engine = choose_engine(engine)
        declared, through_learn2learn = vars(type(self)), self.engine == "learn2learn"  # declared: not inherited
        self.recordable = declared.get("recordable", False) and not through_learn2learn
        self.wrapper: Wrapper | None = declared.get("learn2learn") if through_learn2learn else None
        if through_learn2learn and self.wrapper is None:
            raise ValueError(f"{type(self).__name__} has no learn2learn engine; set algo.engine=vectorized")
        self.task_chunk, self.objective = task_chunk, objective
        self.most_numbers = MAX_CPU_NUMBERS
        self.room: dict[bool, int] = {}  # tasks that a GPU's memory was found to hold, in training and in tests

    @abstractmethod
    def adapt(self, params: Params, support: Examples, n_way: int) -> Any:
        """Run the inner loop: adapt theta (`params`) to the task's support set, and return a tree of tensors.

        A method that `asks` for facts about a task takes them as keyword arguments with defaults.
        """

    @abstractmethod
    def predict(self, params: Params, state: Any, x: Tensor) -> Tensor:
        """Predict outputs [M, ...] for the query inputs x [M, ...] with the state that `adapt` returned."""

    def score(self, params: Params, state: Any, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Score one task: scalars by name, of which training descends `loss`."""
        return self.objective(output, y)

    def extra_scores(self, params: Params, state: Any, query: Examples) -> dict[str, Tensor]:
        """Return further scores of one task; in validation and test their names have suffixes, as accuracy@0."""
        return {}

    def theta(self) -> Params:
        """Return the `params` of a task: the parameters by name, and other tensors that change from step to step."""
        return dict(self.named_parameters())

    def phase(self) -> Hashable:
        """Return other values that the computation of a task depends on; a recording holds for one value."""
        return None

    def meta_loss(self, batch: Any) -> tuple[Tensor, Metrics]:
        scores = self._score_in_chunks(batch, partial(self._score_tasks, self.theta()))
        return scores[self.goal].mean(), self._average(scores)

    def meta_gradient(self, batch: Any) -> Metrics:
        theta = dict(self.named_parameters())

        def tasks(chunk: Batch) -> Scored:
            scored, gradients = self._call("outer step", self._find_gradient, chunk)
            means = torch._foreach_div(list(gradients.values()), float(batch.n_tasks))
            for name, gradient in zip(gradients, means, strict=True):
                if (before := theta[name].grad) is None:
                    theta[name].grad = gradient
                else:
                    before.add_(gradient)
            found: Scored = scored
            return found

        return self._average(self._score_in_chunks(batch, tasks))

    def record(self, backend: str, after: int = 0) -> None:
        assert self.recordable
        self.recorder = Recorder(backend, after)

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            scores = self._score_in_chunks(batch, partial(self._call, "test", self._score_tasks))
            return {name: score.detach() for name, score in scores.items()}

    def predictions(self, batch: Batch) -> Prediction | None:
        if batch.n_way:
            return None
        tasks = enumerate(zip(*batch.support, batch.query.x, strict=True))
        means = [self.adapt_to(Examples(sx, sy), 0, **batch.facts(task))(x) for task, (sx, sy, x) in tasks]
        return Prediction(torch.stack(means), None)

    @torch.no_grad()
    def adapt_to(self, support: Examples, n_way: int, **facts: Tensor) -> Predictor:
        return torch.no_grad()(self._adapt(self.theta(), support, n_way, **self._choose(facts))[1])

    def chunk(self, batch: Batch, n_tasks: int) -> int:
        """Choose how many of `n_tasks` tasks like those of the batch to run at once.

        Small tasks gain from company; on a CPU, large ones run faster one by one. A GPU takes as many as it has
        memory for.
        """
        if self.engine == "learn2learn" or isinstance(batch, MixedBatch):
            return 1
        if self.task_chunk > 1 or (self.task_chunk == 1 and batch.query.x.device.type == "cpu"):
            return self.task_chunk
        return choose_tasks_at_once(batch, n_tasks, self.room.get(self.training), self.most_numbers)

    def describe_engine(self, batch: Batch, n_tasks: int) -> str:
        if self.engine == "learn2learn":
            return self.engine
        at_once = self.chunk(batch, n_tasks)
        some = f"{at_once} tasks at a time" if at_once < n_tasks else "all tasks at once"
        replayed = ", replayed once they repeat" if self._is_recorded(batch, at_once) else ""
        return f"{self.engine}, {'task by task' if at_once == 1 else some}{replayed}"

    def _score_in_chunks(self, batch: Batch, tasks: Callable[[Batch], Scored]) -> dict[str, Tensor]:
        """Return each score of each task [B]; `tasks` scores a chunk of tasks."""
        done: list[Scored] = []
        first = 0
        while first < batch.n_tasks:
            size = self.chunk(batch, batch.n_tasks)
            try:
                done.append(tasks(batch.tasks(first, first + size)))
                first += size
            except torch.OutOfMemoryError:
                if size == 1 or self.task_chunk > 1:
                    raise
                self.room[self.training] = size // 2
                log.info("%d tasks at once are too many for the memory; %d are next", size, size // 2)
                torch.cuda.empty_cache()
        if self.training and done[0].statistics and norm.find_running_layers(self):
            norm.update_running(
                self, [join_statistics(layer) for layer in zip(*(d.statistics for d in done), strict=True)]
            )
        return {name: torch.cat([d.scores[name] for d in done]) for name in done[0].scores}

    def _average(self, scores: dict[str, Tensor]) -> Metrics:
        hidden = {self.goal} - {"loss"}
        return {name: score.detach().mean() for name, score in scores.items() if name not in hidden}

    def _call(self, use: str, function: Callable[[Params, Batch], Any], chunk: Batch) -> Any:
        """Return `function` of theta and a chunk, by its recording if there is one."""
        if self.recorder is None or not self._is_recorded(chunk, chunk.n_tasks):
            return function(self.theta(), chunk)

        def of_tensors(theta: Params, support: Examples, query: Examples, facts: dict[str, Tensor]) -> Any:
            return function(theta, Batch(support, query, chunk.n_way, facts))

        # torch.matmul takes other kernels for what requires a gradient, so a recording's theta does as the plain one.
        theta = {name: value.detach().requires_grad_(value.requires_grad) for name, value in self.theta().items()}
        key = (chunk.n_way, self.training, self.phase())
        return self.recorder(use, of_tensors, theta, chunk.support, chunk.query, self._choose(chunk.side), key=key)

    def _is_recorded(self, batch: Batch, at_once: int) -> bool:
        """Return whether the computation of so many tasks at once is recorded when it repeats.

        Tasks that run one by one on a CPU are large, so Python takes little of their time.
        """
        if self.recorder is None or isinstance(batch, MixedBatch):
            return False
        alone = at_once == 1 and batch.query.x.device.type == "cpu"
        return not (alone and self.recorder.after)

    def _find_gradient(self, params: Params, chunk: Batch) -> tuple[Scored, Params]:
        """Return scores and statistics, and the gradient of the goal's sum over the tasks, without its graph."""
        learned = [name for name, value in self.named_parameters() if value.requires_grad]
        with torch.enable_grad():
            params = params | {name: params[name].requires_grad_() for name in learned}
            scored = self._score_tasks(params, chunk)
            goal = scored.scores[self.goal].sum()
            gradients = torch.autograd.grad(goal, [params[name] for name in learned], allow_unused=True)
        found = {name: value for name, value in zip(learned, gradients, strict=True) if value is not None}
        return Scored({name: score.detach() for name, score in scored.scores.items()}, scored.statistics), found

    def _score_tasks(self, params: Params, chunk: Batch) -> Scored:
        """Score a chunk of tasks, in training and in evaluation alike."""
        return self._score_alone(params, chunk) if chunk.n_tasks == 1 else self._score_together(params, chunk)

    def _score_together(self, params: Params, batch: Batch) -> Scored:
        def task(support: Examples, query: Examples, facts: dict[str, Tensor]) -> Scored:
            return self._score_task(params, support, query, batch.n_way, **facts)

        together = torch.func.vmap(task, randomness="different")
        scored: Scored = together(batch.support, batch.query, self._choose(batch.side))
        return scored

    def _score_alone(self, params: Params, batch: Batch) -> Scored:
        support, query = (Examples(side.x[0], side.y[0]) for side in (batch.support, batch.query))
        scored = self._score_task(params, support, query, batch.n_way, **self._choose(batch.facts(0)))
        return Scored({name: score[None] for name, score in scored.scores.items()}, scored.statistics)

    def _score_task(self, params: Params, support: Examples, query: Examples, n_way: int, **facts: Tensor) -> Scored:
        state, predictor = self._adapt(params, support, n_way, **facts)
        with context.recording() as statistics:
            output = predictor(query.x)
        scores = self.score(params, state, output, query.y)
        if not self.wrapper:  # which has no state to hand on
            scores |= self.extra_scores(params, state, query)
        return Scored(scores, statistics)

    def _choose(self, side: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Choose the facts that the method asks for."""
        return {name: side[name] for name in self.asks if name in side}

    def _adapt(self, params: Params, support: Examples, n_way: int, **facts: Tensor) -> tuple[Any, Predictor]:
        """Adapt to a task; return the state, None from learn2learn's wrappers, and what predicts its queries."""
        with context.adapting():
            if self.wrapper:
                return None, self.wrapper(self, support)
            state = self.adapt(params, support, n_way, **facts)
        return state, partial(self.predict, params, state)
