"""The files that a run writes while it goes on: metrics, checkpoints and the scores of its test tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarun.core.run_folder import RunFolder
from metarun.core.whole import written_whole
from metarun.run import checkpoint
from metarun.run.evaluation import Scores
from metarun.run.tracking.json_lines import JsonLines
from metarun.run.tracking.sink import Sink


class Files:
    """The files in a run's folder, and the sinks.

    Args:
        folder: the run's folder.
        sinks: get all metrics too.
        metrics_bytes: length to which metrics.jsonl is cut, for a resumed run.
    """

    def __init__(self, folder: Path, sinks: Sequence[Sink], metrics_bytes: int) -> None:
        self.folder, self.sinks = RunFolder(folder), sinks
        self.lines = JsonLines(self.folder.metrics, metrics_bytes)

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Write a line of metrics."""
        self.lines.log(step, split, metrics)
        for sink in self.sinks:
            sink.log(step, split, metrics)

    def flush(self) -> int:
        """Flush the metrics to the disk. Returns: the bytes of metrics.jsonl."""
        return self.lines.flush()

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write the checkpoint `last` or `best`."""
        checkpoint.save({"last": self.folder.last, "best": self.folder.best}[name], state)

    def keep(self, scores: Scores) -> None:
        """Write the scores of each test task."""
        write_task_scores(self.folder.test_tasks, scores)

    def close(self) -> None:
        self.lines.close()


def write_task_scores(path: Path, scores: Scores) -> None:
    """Write index and scores of each test task, whole or not at all."""
    n_tasks = len(next(iter(scores.values())))
    with written_whole(path) as file:
        np.savez_compressed(file, index=np.arange(n_tasks), **scores)  # type: ignore[arg-type]


class NoFiles:
    """Writes nothing: for the processes of a run other than the first."""

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        pass

    def flush(self) -> int:
        return 0

    def save(self, name: str, state: dict[str, Any]) -> None:
        pass

    def keep(self, scores: Scores) -> None:
        pass

    def close(self) -> None:
        pass
