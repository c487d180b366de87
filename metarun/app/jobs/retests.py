"""Tests of a finished run, on its own source or on another: each result is a file in its folder, found there later."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from metarun.algos.base.learner import Learner
from metarun.app.jobs.reopened import Trained
from metarun.app.jobs.retest_settings import list_changes, make_settings, name_test
from metarun.app.jobs.tested_weights import join_learners
from metarun.app.jobs.without_effect import warn_without_effect
from metarun.core.errors import ConfigError
from metarun.core.known_source import find_untold
from metarun.core.postponed import postponed
from metarun.core.results_file import seal
from metarun.core.run_folder import RunFolder
from metarun.core.scores import estimate, list_directions
from metarun.core.tasks import TaskSource
from metarun.core.whole import hash_file, write_json
from metarun.core.words import is_percent, name_size
from metarun.data.counts import describe_images
from metarun.data.resize import list_classes
from metarun.report.runs import read_evaluation
from metarun.run.by_source import estimate_by_source
from metarun.run.device import name_device
from metarun.run.evaluation import evaluate
from metarun.run.folder import write_task_scores
from metarun.run.interrupt import StopRequest
from metarun.run.results import read_git_state, read_versions
from metarun.settings.names import name_query
from metarun.settings.reopen import SavedSettings
from metarun.settings.schema import Settings

Values = Mapping[str, Any]
Done = Callable[[Values], None]


@dataclass(frozen=True)
class Retest:
    """A test of a finished run.

    Attributes:
        run: that is tested.
        values: what is asked to be other than in its own test.
        saved, settings: of this test, and the same resolved.
    """

    run: Trained
    values: Values
    saved: SavedSettings
    settings: Settings

    @classmethod
    def plan(cls, run: Trained, values: Values, mode: str) -> Retest:
        """Return the test with `values` in BatchNorm mode `mode`. Raises: ConfigError for settings that do not fit."""
        saved = make_settings(run.saved, run.source.info.input_shape, values).change({"bn": mode})
        return cls(run, values, saved, saved.resolve())

    @property
    def file(self) -> Path:
        """Where its result is written."""
        name = "-".join([name_test(self.settings), *self.run.asked.values(), self.saved.key()])
        return RunFolder(self.run.folder).evaluations / f"{name}.json"

    @property
    def task_scores(self) -> Path:
        """Where the scores of every task are written."""
        return self.file.with_suffix(".npz")

    def open_source(self) -> TaskSource:
        """Open its source. Raises: ConfigError if it is the run's own data, and its split has changed since."""
        return self.run.open_checked(self.saved, self.settings, self.values)

    def make_learner(self, source: TaskSource) -> Learner:
        """Make the learner with the run's weights, or an ensemble of those of several checkpoints."""
        run = self.run
        made = (replace(run, state=weights).make_learner(self.settings) for weights in (run.state, *run.others))
        return join_learners(made, source.info.objective)

    def score(self, source: TaskSource, learner: Learner, stop: StopRequest) -> dict[str, Any]:
        """Run the test; write its result and the scores of every task."""
        run, settings, started = self.run, self.settings, time.perf_counter()
        split, n_tasks = run.split, settings.run["test_tasks"]
        at_once = settings.run["eval_batch_size"]
        scores = evaluate(learner, source, split, n_tasks, at_once, stop, features=run.features)
        found = {
            **{key: run.results[key] for key in ("algo", "backbone", "seed")},
            "best_step": run.best_step,
            "data": settings.choices["data"],
            **{key: name_size(settings.data.get(key)) for key in ("n_way", "k_shot", "n_query")},
            "query": name_query(settings.data),
            "bn": settings.bn,
            "answers": learner.answers,
            "changes": {**list_changes(self.values), **run.asked},
            "trained": {key: run.results.get(key) for key in ("data", "n_way", "k_shot", "bn", "trainval")},
            "test": {score: estimate(values, is_percent(score)).as_json() for score, values in scores.items()},
            **estimate_by_source(source, scores),
            "directions": list_directions(scores, learner.directions),
            "split_sha256": source.info.split_sha256,
            "episode_sha256": source.fingerprint(split, n_tasks),
            "images": describe_images(source.info.facts),
            "source": source.info.facts,
            "classes": len(list_classes(source, split)),
            "seen": sorted(set(run.source.classes["train"]) & list_classes(source, split)),
            "untold": find_untold(run.source.classes["train"], list_classes(source, split)),
            "seconds": time.perf_counter() - started,
            "device": str(run.device),
            "device_name": name_device(run.device),
            "threads": torch.get_num_threads(),
            "git": read_git_state(),
            "versions": read_versions(),
        }
        self.file.parent.mkdir(exist_ok=True)
        write_task_scores(self.task_scores, scores)
        write_json(self.file, seal(found | {"scores_sha256": hash_file(self.task_scores)}))
        return found


def run_tests(
    run: Trained, values: Values, modes: Sequence[str], again: bool, stop: StopRequest, done: Done
) -> Iterator[dict[str, Any]]:
    """Yield the result of the test with `values` in each BatchNorm mode, from a file or computed now.

    Args:
        modes: by default one transductive and one inductive, the run's own first.
        again: whether it is computed where there is a file.
        done: is told of each test that is made now.
    Raises: ConfigError for a mode that the run cannot be tested in.
    """
    source: TaskSource | None = None
    for mode in modes or run.modes[:2]:
        if mode not in run.modes:
            raise ConfigError(
                f"bn={mode}: the run was trained with bn={run.modes[0]}; it can be tested with bn={','.join(run.modes)}"
            )
        test = Retest.plan(run, values, mode)
        found = {} if again else read_evaluation(test.file)[0]
        if not found:
            with postponed():
                source = source or test.open_source()
                learner = test.make_learner(source)
            found = test.score(source, learner, stop)
            done(found)
            warn_without_effect(found, run.results, test.task_scores, RunFolder(run.folder).test_tasks)
        yield found
