"""How far a job of a sweep is, as its folder tells."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarun.core.identity import read_yaml_list
from metarun.core.results_file import read_metrics_line
from metarun.core.run_folder import RunFolder
from metarun.core.scores import Directions, choose_score, read_directions
from metarun.core.whole import find_time
from metarun.core.words import format_with_name
from metarun.report.runs import read_run
from metarun.settings.saved import read_saved_value


@dataclass(frozen=True)
class Job:
    """One job of a sweep; `state` is finished, failed, interrupted, running, skipped or waiting.

    `score` is the last in words, `left` seconds.
    """

    folder: Path
    overrides: str
    state: str
    step: int
    steps: int
    score: str
    left: float | None
    error: str | None

    @property
    def done(self) -> bool:
        return self.state in ("finished", "skipped")


def read_job(folder: Path, since: float, rerun: str = "interrupted") -> Job:
    """Read the job in `folder` of a sweep that began at the time `since` and repeats the jobs that `rerun` names.

    Whoever reads may come at any moment: a file that is missing, damaged or taken away meanwhile counts as empty.
    """
    files = RunFolder(folder)
    overrides = " ".join(map(str, read_yaml_list(files.overrides)))
    saved = read_saved_value(folder, "run.steps")
    steps = saved if isinstance(saved, int) else 0
    written, results = find_time(files.results), files.read_results()
    if results and written is not None:
        state, old = str(results.get("status")), written < since * 1e9
        if old and (rerun == "all" or state == "interrupted" or state == rerun):
            return Job(folder, overrides, "waiting", 0, steps, "", None, None)
        if old and state == "finished":
            state = "skipped"
        if old and (damage := _find_damage(folder, written)):
            return Job(folder, overrides, "failed", 0, steps, "", None, damage)
        means = {name: found["mean"] for name, found in (results.get("test") or {}).items()}
        score = _describe_score(means, read_directions(results))
        return Job(folder, overrides, state, results.get("steps", 0), steps, score, None, results.get("error"))
    train, val = _read_last(files.metrics)
    step = int(train.get("step", 0))
    left = (steps - step) * train["seconds"] / step if step and "seconds" in train else None
    return Job(folder, overrides, "running", step, steps, _describe_score(val or train, {}), left, None)


@functools.cache
def _find_damage(folder: Path, written: int) -> str | None:
    """Find what is wrong with a run that ended at the time `written`."""
    run = read_run(folder)
    return run.damage if run else None


def _describe_score(scores: Mapping[str, Any], directions: Directions) -> str:
    name = choose_score(scores, directions)
    return format_with_name(name, scores[name]) if name in scores else ""


def _read_last(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the last train line and the last val line, from the file's end."""
    found: dict[str, dict[str, Any]] = {"train": {}, "val": {}}
    with contextlib.suppress(OSError), open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 8192))
        for line in file.read().split(b"\n")[:-1]:
            if values := read_metrics_line(line):
                found[values["split"]] = values
    return found["train"], found["val"]
