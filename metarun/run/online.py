"""Tasks that arrive one by one: each is scored before its data is learned from."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from metarun.core.batches import join_tasks
from metarun.core.errors import ConfigError
from metarun.core.ranges import NonNegativeInt, PositiveInt
from metarun.core.run_folder import RunFolder
from metarun.core.scores import choose_score, find_sign, list_directions
from metarun.core.tasks import Batch
from metarun.core.whole import written_whole
from metarun.run import checkpoint
from metarun.run.evaluation import Scores, explain_streams
from metarun.run.finite import check_weights
from metarun.run.folder import Files, keep_test, load_last
from metarun.run.interrupt import StopRequest
from metarun.run.parts import Parts
from metarun.run.progress import Progress, average, read_numbers
from metarun.run.tracking.sink import Sink

MOVES = ("", ".T_max", ".eta_min", ".cycles", ".end_factor", ".steps", ".step_size", ".gamma", ".at", ".factors")
"""Settings of where a schedule goes, and not of where it begins."""

IN_A_ROW = 3
"""So many tasks in a row must be done well for a learner to count as proficient."""


class OnlineRun:
    """One pass over a stream of tasks, which is the split train in its order.

    Round t scores the learner on task t: it may adapt to the task's support set, and its loss is on the query set. Then
    the task joins those seen so far, of which each outer step draws a meta-batch. Regret is what all rounds lost more
    than the same learner loses with the one theta that is best for all tasks in hindsight, which `hindsight_steps`
    further outer steps on all tasks look for at the end. An optimizer keeps the rate that it begins with: a stream has
    no end in sight, so schedules do not move.

    Args:
        parts: learner, source and optimizers.
        steps: rounds, one a task.
        updates: outer steps of a round.
        meta_batch_size: tasks of an outer step, drawn with replacement from those seen; null: all of them, once each.
        hindsight_steps: outer steps at the end that look for the theta to compare with; 0: no regret.
        proficient: the value of the main score at which a task counts as done well; null: not asked.
        checkpoint_every, log_every: rounds.
    Reference: Finn, Rajeswaran, Kakade, Levine. Online Meta-Learning. ICML 2019. arXiv:1902.08438, equations 3-5.
    """

    many_shapes = False
    unused: ClassVar[Mapping[str, str]] = {
        "data.n_query": "a stream has the training tasks' data.train.n_query alone",
        "data.eval_seed": "a stream has training tasks alone",
        **dict.fromkeys([f"optim.schedule{name}" for name in MOVES], "schedules do not move"),
    }

    def __init__(
        self,
        parts: Parts,
        steps: PositiveInt,
        updates: NonNegativeInt,
        meta_batch_size: PositiveInt | None,
        hindsight_steps: NonNegativeInt,
        proficient: float | None,
        checkpoint_every: PositiveInt,
        log_every: PositiveInt,
    ) -> None:
        self.parts, self.steps, self.updates, self.meta_batch_size = parts, steps, updates, meta_batch_size
        self.hindsight_steps, self.proficient = hindsight_steps, proficient
        self.checkpoint_every, self.log_every = checkpoint_every, log_every
        self.progress, self.folder = Progress(), RunFolder(parts.folder)
        self.seen: list[Batch] = []
        self.scores: dict[str, list[float]] = {}
        self.state: Any = None
        self.test_seconds = 0.0
        self.saved_step: int | None = None
        self.tracking_id: str | None = None

    @property
    def step(self) -> int:
        return self.progress.step

    @property
    def metrics_bytes(self) -> int:
        return self.progress.metrics_bytes

    @property
    def best(self) -> Mapping[str, float]:
        return {}

    @staticmethod
    def shareable_tasks(settings: Mapping[str, Any]) -> int:
        return 1

    def describe(self) -> dict[str, Any]:
        fingerprint = self.parts.source.fingerprint("train", self.steps)
        return {"meta_batch_size": self.meta_batch_size, "episode_sha256": fingerprint}

    def tasks_at_once(self) -> int:
        return self.meta_batch_size or self.steps

    def resumable(self) -> bool:
        return self.folder.has_checkpoint()

    def restore(self) -> None:
        parts, state = self.parts, load_last(self.folder)
        now, then = parts.source.info.split_sha256, state["split_sha256"]
        if now != then:
            raise ValueError(f"{self.folder.last} is of other tasks: {then[:12]}, not {now[:12]}")
        parts.load_state_dict(state)
        self.progress, self.scores = Progress(**state["progress"]), state["scores"]
        self.saved_step = self.progress.step
        self.state = checkpoint.move_tensors(state["state"], parts.device)
        self.tracking_id = state["wandb_id"]
        checkpoint.restore_random(state["random"])

    def facts(self) -> dict[str, Any]:
        p = self.progress
        seconds = {"train": p.train_seconds, "val": p.val_seconds, "test": self.test_seconds}
        return {
            "val": {name: float(np.mean(values)) for name, values in self.scores.items()},  # what a search goes by
            "directions": list_directions(self.scores, self.parts.learner.directions) | {"regret": "lower"},
            "best_step": None,
            "saved_step": self.saved_step,
            "steps": p.step,
            "seconds": {"total": sum(seconds.values()), **seconds},
            "tasks_per_second": p.find_rate(1),
        }

    def execute(self, sinks: Sequence[Sink], stop: StopRequest) -> dict[str, Any]:
        self.files = Files(self.parts.folder, sinks, self.progress.metrics_bytes, self.progress.metrics_sha256)
        try:
            with explain_streams(self.parts.learner):
                self._go_through(stop)
                return self._compare_with_hindsight(stop)
        finally:
            self.files.close()

    def _go_through(self, stop: StopRequest) -> None:
        parts, p = self.parts, self.progress
        if p.step == 0:
            self.state = parts.learner.initial_state()
        self.seen = [self._draw_task(number) for number in range(p.step)]
        while p.step < self.steps:
            task = self._draw_task(p.step)
            started = time.perf_counter()
            found = self._score(task)
            p.val_seconds += time.perf_counter() - started
            for name, score in found.items():
                self.scores.setdefault(name, []).append(score)
            started = time.perf_counter()
            self.seen.append(task)
            metrics = [self._update() for _ in range(self.updates)]
            p.step += 1
            p.window += read_numbers(metrics, p.step) if metrics else []
            p.train_seconds += time.perf_counter() - started
            self._log(found)
            stopping = stop.made
            if stopping or stop.take_save() or p.step % self.checkpoint_every == 0 or p.step == self.steps:
                self._save()
            if stopping:
                stop.raise_if_made()

    def _draw_task(self, number: int) -> Batch:
        learner = self.parts.learner
        task = next(learner.train_stream(self.parts.source, number, 1))
        if not isinstance(task, Batch):
            raise ConfigError(
                f"{type(learner).__name__} is not trained on tasks of examples, and run=online hands it those seen so "
                "far: choose another algo"
            )
        return task

    def _score(self, tasks: Batch) -> dict[str, float]:
        """Return each score of one task."""
        return {name: float(score[0]) for name, score in self.parts.learner.eval().evaluate(tasks).items()}

    def _update(self) -> dict[str, torch.Tensor]:
        """Make an outer step on tasks seen so far."""
        parts, batch = self.parts, join_tasks([self.seen[place] for place in self._choose()])
        self.state, metrics = parts.learner.train().outer_step(self.state, batch, parts.optims)
        return metrics

    def _choose(self) -> list[int]:
        """Choose places of tasks for an outer step, by the generator that a run seeds and saves."""
        if self.meta_batch_size is None:
            return list(range(len(self.seen)))
        places: list[int] = torch.randint(len(self.seen), (self.meta_batch_size,)).tolist()
        return places

    def _log(self, found: dict[str, float]) -> None:
        p = self.progress
        self.files.log(p.step, "val", found)
        if p.step % self.log_every and p.step < self.steps:
            return
        means = average(p.window)
        p.window.clear()
        self.files.log(p.step, "train", means | self.parts.rates() | {"seconds": p.train_seconds})

    def _save(self) -> None:
        p, parts = self.progress, self.parts
        check_weights(parts.learner, "round", p.step)
        p.metrics_bytes, p.metrics_sha256 = self.files.flush()
        state = {"progress": vars(p).copy(), "scores": self.scores, "state": self.state, "wandb_id": self.tracking_id}
        self.files.save_last(parts.state_dict() | state | {"split_sha256": parts.source.info.split_sha256})
        self.saved_step = p.step

    def _compare_with_hindsight(self, stop: StopRequest) -> dict[str, Any]:
        """Score all tasks with one theta, and return the outcome."""
        started = time.perf_counter()
        self.files.save_best({"learner": self.parts.learner.state_dict(), "step": self.step, "source": None})
        scores: Scores = {name: np.array(values) for name, values in self.scores.items()}
        if self.hindsight_steps:
            for _ in range(self.hindsight_steps):
                stop.raise_if_made()
                self._update()
            best = np.array([self._score(task)["loss"] for task in self.seen])
            scores["regret"] = scores["loss"] - best
            with written_whole(self.folder.path / "regret.npz") as file:
                np.savez_compressed(file, loss=scores["loss"], hindsight=best, regret=scores["regret"].cumsum())
        self.test_seconds = time.perf_counter() - started
        outcome: dict[str, Any] = {"test": keep_test(self.files, self.step, scores)}
        if "regret" in scores:
            outcome["regret"] = float(scores["regret"].sum())
        return outcome | {"tasks_to_proficiency": self._find_proficiency()}

    def _find_proficiency(self) -> int | None:
        """Return after how many tasks the next IN_A_ROW are done well; None if that never is."""
        if self.proficient is None:
            return None
        own = self.parts.learner.directions
        score = choose_score(self.scores, own)
        well = find_sign(score, own) * (np.array(self.scores[score]) - self.proficient) >= 0
        rows = [start for start in range(len(well) - IN_A_ROW + 1) if well[start : start + IN_A_ROW].all()]
        return rows[0] if rows else None
