"""The files that a run writes while it goes on: metrics, checkpoints and the scores of its test tasks."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarun.core.errors import ConfigError
from metarun.core.identity import KEY, check_hash, read_hash
from metarun.core.run_folder import RunFolder
from metarun.core.scores import estimate
from metarun.core.whole import written_whole
from metarun.core.words import is_percent
from metarun.run import checkpoint
from metarun.run.evaluation import Scores
from metarun.run.tracking.json_lines import JsonLines
from metarun.run.tracking.sink import Sink

log = logging.getLogger(__name__)


class Files:
    """The files in a run's folder, and the sinks.

    Args:
        folder: the run's folder.
        sinks: get all metrics too.
        metrics_bytes, metrics_sha256: length to which metrics.jsonl is cut, for a resumed run, and its hash then.
    """

    def __init__(self, folder: Path, sinks: Sequence[Sink], metrics_bytes: int, metrics_sha256: str) -> None:
        self.folder, self.sinks = RunFolder(folder), sinks
        self.hash = read_hash(self.folder)
        self.lines = JsonLines(self.folder.metrics, metrics_bytes, metrics_sha256)

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Write a line of metrics."""
        self.lines.log(step, split, metrics)
        for sink in self.sinks:
            sink.log(step, split, metrics)

    def flush(self) -> tuple[int, str]:
        """Flush the metrics to the disk. Returns: length and hash of metrics.jsonl."""
        return self.lines.flush()

    def save_last(self, state: dict[str, Any]) -> None:
        """Write the last checkpoint; the one before it is kept as the previous one."""
        if self.folder.last.exists():
            _keep_as(self.folder.last, self.folder.previous)
        checkpoint.save(self.folder.last, state | {KEY: self.hash})

    def save_best(self, state: dict[str, Any]) -> None:
        """Write the best checkpoint."""
        checkpoint.save(self.folder.best, state | {KEY: self.hash})

    def keep(self, scores: Scores) -> None:
        """Write the scores of each test task."""
        write_task_scores(self.folder.test_tasks, scores)

    def close(self) -> None:
        self.lines.close()


def _keep_as(path: Path, other: Path) -> None:
    """Give a file a second name, or a new one where the file system has no second names."""
    other.unlink(missing_ok=True)
    try:
        os.link(path, other)
    except OSError:
        os.replace(path, other)


def load_last(folder: RunFolder) -> dict[str, Any]:
    """Load the last checkpoint, or the one before it where the last is damaged.

    Raises: ConfigError if both are damaged, or one is of another run.
    """
    problems: list[str] = []
    for path in (folder.last, folder.previous):
        try:
            state = checkpoint.load(path)
        except checkpoint.Damaged as damage:
            problems.append(str(damage))
            continue
        check_hash(folder, state.get(KEY), path)
        if problems:
            step = state["progress"]["step"]
            log.warning("%s; resuming from the checkpoint before it, of step %d", problems[0], step)
        return state
    raise ConfigError(f"{'; '.join(problems)}: to train again, {folder.make_command('rerun')}")


def load_best(folder: RunFolder) -> dict[str, Any]:
    """Load the best checkpoint. Raises: ConfigError if it is damaged, changed, or of another run."""
    try:
        state = checkpoint.load(folder.best)
    except checkpoint.Damaged as damage:
        raise ConfigError(f"{damage}, and it is what is tested: {folder.make_command('rerun')}") from damage
    check_hash(folder, state.get(KEY), folder.best)
    if change := folder.find_change(folder.best, folder.read_results()):
        raise ConfigError(f"{change}, and it is what is tested: {folder.make_command('rerun')}")
    return state


def keep_test(files: Files | NoFiles, step: int, scores: Scores) -> dict[str, Any]:
    """Write the scores of each test task, log their means, and return their estimates for results.json."""
    estimates = {name: estimate(values, is_percent(name)) for name, values in scores.items()}
    files.keep(scores)
    files.log(step, "test", {name: e.mean for name, e in estimates.items()})
    return {name: e.as_json() for name, e in estimates.items()}


def write_task_scores(path: Path, scores: Scores) -> None:
    """Write index and scores of each test task, whole or not at all."""
    n_tasks = len(next(iter(scores.values())))
    with written_whole(path) as file:
        np.savez_compressed(file, index=np.arange(n_tasks), **scores)  # type: ignore[arg-type]


class NoFiles:
    """Writes nothing: for the processes of a run other than the first."""

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        pass

    def flush(self) -> tuple[int, str]:
        return 0, ""

    def save_last(self, state: dict[str, Any]) -> None:
        pass

    def save_best(self, state: dict[str, Any]) -> None:
        pass

    def keep(self, scores: Scores) -> None:
        pass

    def close(self) -> None:
        pass
