"""Tasks that arrive one after the other and are learned once: what is known of all of them as time goes by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from metarun.algos.base.abilities import LearnsInTurn
from metarun.core.objectives import classification
from metarun.core.ranges import NonNegativeInt, PositiveFloat, PositiveInt, UpTo
from metarun.core.scores import list_directions
from metarun.core.task_streams import StreamSource
from metarun.core.tasks import Batch, Examples
from metarun.core.whole import written_whole
from metarun.run.evaluation import Scores, share_scores
from metarun.run.interrupt import StopRequest
from metarun.run.offline import OfflineRun
from metarun.run.parts import Parts

DIRECTIONS: Mapping[str, Literal["higher", "lower"]] = {"forgetting": "lower", "forward_transfer": "higher"}


class ContinualRun(OfflineRun):
    """Meta-training as offline, then streams of tasks of unseen classes; validation is by streams too.

    A stream has `tasks` tasks of `ways` classes each, which no two share. The learner learns one after the other from
    its data.k_shot examples of a class, and is asked about data.n_query others of each class that has come so far. The
    scores are numbers of a stream, and their intervals are over streams:

    - `accuracy`: mean over all tasks at the end; `accuracy@learned`: of each task just after it was learned;
    - `forgetting`: how much a task's accuracy fell from then to the end, mean over all tasks but the last;
    - `forward_transfer`: how much better a task is told when it has just been learned than by a learner that begins
      with it (`accuracy@alone`), both with the task's classes as the only answers, mean over all tasks but the first.

    Args:
        parts: learner, source and optimizers.
        steps: outer steps of the meta-training; 0: none.
        streams, val_streams: streams of the test, and of a validation.
        tasks: tasks of a stream.
        ways: classes of a task; None: as many as a task of the source has.
        score_every: tasks between two columns of the matrix of accuracies, which ends with the last task.
        task_known: whether a question comes with its task, whose classes are then the only answers; otherwise all
            classes that have come so far are.
        alone: learn each task alone too, for forward_transfer.
        The others are as for OfflineRun.
    Reference: Javed, White. Meta-Learning Representations for Continual Learning. NeurIPS 2019. arXiv:1905.12588,
        section 4. Forgetting is minus the backward transfer of Lopez-Paz, Ranzato. NeurIPS 2017. arXiv:1706.08840,
        equation 3.
    """

    many_shapes = False

    def __init__(
        self,
        parts: Parts,
        steps: NonNegativeInt,
        meta_batch_size: PositiveInt,
        streams: Annotated[int, Ge(2)],
        val_streams: Annotated[int, Ge(2)],
        tasks: Annotated[int, Ge(2)],
        ways: PositiveInt | None,
        score_every: Annotated[PositiveInt, UpTo("tasks of a stream")],
        task_known: bool,
        alone: bool,
        val_every: PositiveInt | None,
        checkpoint_every: PositiveInt,
        log_every: PositiveInt,
        on_nan: Literal["stop", "skip"] = "stop",
        max_time: PositiveFloat | None = None,
        patience: Annotated[PositiveInt | None, UpTo("validations")] = None,
    ) -> None:
        if not isinstance(parts.learner, LearnsInTurn):
            raise ValueError(
                f"{type(parts.learner).__name__} does not learn task after task, as run=continual asks: choose "
                "algo=oml, anml, progressive or finetune_in_turn"
            )
        if not isinstance(parts.source, StreamSource):
            raise ValueError(
                f"{type(parts.source).__name__} has no streams of tasks that share no class, as run=continual needs: "
                "choose data of images"
            )
        ways = ways or parts.source.info.n_way
        if ways == 1 and (task_known or alone):
            raise ValueError(
                "run.ways=1: a task of one class has but one answer; set run.task_known=false and run.alone=false, or "
                "run.ways=2 or more"
            )
        super().__init__(
            parts,
            steps,
            meta_batch_size,
            val_every=val_every,
            val_tasks=val_streams,
            test_tasks=streams,
            eval_batch_size=1,
            checkpoint_every=checkpoint_every,
            log_every=log_every,
            on_nan=on_nan,
            max_time=max_time,
            patience=patience,
        )
        self.tasks, self.ways, self.task_known, self.alone = tasks, ways, task_known, alone
        self.times = [*range(score_every, tasks, score_every), tasks]

    @staticmethod
    def shareable_tasks(settings: Mapping[str, Any]) -> int:
        return int(min(settings[key] for key in ("meta_batch_size", "val_streams", "streams")))

    def describe(self) -> dict[str, Any]:
        facts = super().describe()
        streams = f"{facts['episode_sha256']} {self.tasks} {self.ways} {self.task_known}"
        return facts | {"episode_sha256": hashlib.sha256(streams.encode()).hexdigest()}

    def facts(self) -> dict[str, Any]:
        facts = super().facts()
        directions = {**DIRECTIONS, **self.parts.learner.directions}
        return facts | {"directions": list_directions(facts["val"], directions)}

    def _evaluate(self, split: str, n_tasks: int, stop: StopRequest) -> Scores:
        parts = self.parts

        def score(first: int, last: int) -> Iterator[dict[str, Tensor]]:
            assert isinstance(parts.source, StreamSource)
            streams = parts.source.streams(split, first, self.tasks, self.ways)
            for _ in range(first, last):
                yield self._live_through(next(streams), stop)

        scores = share_scores(parts.learner, score, split, n_tasks, parts.group)
        matrix = scores.pop("matrix")  # [streams, task, time]
        if split == "test" and not parts.group.rank:
            times = np.array(self.times)
            matrix = np.where(np.arange(self.tasks)[:, None] < times, matrix, np.nan)
            with written_whole(self.folder.path / "continual.npz") as file:
                np.savez_compressed(file, accuracy=matrix, times=times)
        return scores

    def _live_through(self, stream: Batch, stop: StopRequest) -> dict[str, Tensor]:
        """Return the scores of one stream [1], and the matrix of accuracies [1, task, time], 0 before a task came."""
        learner, ways = self.parts.learner, self.ways
        assert isinstance(learner, LearnsInTurn)
        supports, queries = ([Examples(*task) for task in zip(*side, strict=True)] for side in stream[:2])
        state, learned, known, alone = learner.start_stream(self.tasks * ways), *(list[float]() for _ in range(3))
        matrix = torch.zeros(self.tasks, len(self.times))
        for t, support in enumerate(supports):
            stop.raise_if_made()
            classes = range(t * ways, (t + 1) * ways)
            state = learner.learn_task(state, Examples(support.x, support.y + t * ways), classes)
            logits = learner.answer_task(state, queries[t].x)
            learned.append(self._score(logits, queries[t].y, t, t + 1)["accuracy"])
            if self.alone:
                own = classification(logits[:, t * ways : (t + 1) * ways], queries[t].y)
                known.append(float(own["accuracy"]))
                begun = learner.learn_task(learner.start_stream(ways), support, range(ways))
                alone.append(float(classification(learner.answer_task(begun, queries[t].x), queries[t].y)["accuracy"]))
            if t + 1 in self.times:
                every = learner.answer_task(state, torch.cat([query.x for query in queries[: t + 1]]))
                parts = torch.split(every, [len(query.y) for query in queries[: t + 1]])
                found = [self._score(part, queries[i].y, i, t + 1) for i, part in enumerate(parts)]
                matrix[: t + 1, self.times.index(t + 1)] = torch.tensor([one["accuracy"] for one in found])
        just, end = torch.tensor(learned), matrix[:, -1]
        scores = {
            "loss": torch.tensor([one["loss"] for one in found]).mean(),
            "accuracy": end.mean(),
            "accuracy@learned": just.mean(),
            "forgetting": (just - end)[:-1].mean(),
        }
        if self.alone:
            begun_here = torch.tensor(alone[1:])
            scores |= {"accuracy@alone": begun_here.mean()}
            scores |= {"forward_transfer": (torch.tensor(known[1:]) - begun_here).mean()}
        return {name: score[None] for name, score in (scores | {"matrix": matrix}).items()}

    def _score(self, logits: Tensor, y: Tensor, task: int, come: int) -> dict[str, float]:
        """Return loss and accuracy of the logits [R, n_classes] for questions about a task when so many have come."""
        first, last = (task, task + 1) if self.task_known else (0, come)
        answers = logits[:, first * self.ways : last * self.ways]
        return {name: float(found) for name, found in classification(answers, y + (task - first) * self.ways).items()}
