"""Find the runs under a folder, and read what each left there."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from metarun.core.dotted import leaves
from metarun.core.errors import ConfigError, suggest
from metarun.core.identity import KEY, as_mapping, find_disagreement, read_overrides, read_yaml
from metarun.core.results_file import SEAL, Evaluation, read_metrics_line, read_results_file
from metarun.core.run_folder import RunFolder
from metarun.core.scores import Directions, choose_score, read_directions
from metarun.core.whole import find_change
from metarun.core.words import order_size
from metarun.report.references import walk_runs

OUTCOME_FIELDS = frozenset(
    {"status", "error", "best_step", "saved_step", "steps", "tasks_per_second", "wandb_id", KEY, SEAL}
)
"""Scalar fields of results.json that are outcomes of a run, not settings."""


@dataclass(frozen=True)
class Run:
    """One run, as its folder shows it.

    Attributes:
        folder: the run's folder.
        state: finished, failed, interrupted, running (a process holds its lock), died (it has files but no
            results.json), unstarted (it has only its settings), or damaged.
        results: the content of results.json; empty without one, or with one that is damaged.
        settings: .hydra/config.yaml by dotted key; a group's own name holds its choice, as `optim: adam`.
        overrides: the overrides of the command line.
        damage: what is wrong with its files, if anything, and what to do.
    """

    folder: Path
    state: str
    results: Mapping[str, Any]
    settings: Mapping[str, Any]
    overrides: tuple[str, ...]
    damage: str | None = None

    def value(self, key: str) -> Any:
        """Return the setting or fact `key`; None if this run does not have it."""
        return self.results[key] if _is_fact(key, self.results.get(key)) else self.settings.get(key)

    @property
    def files(self) -> RunFolder:
        return RunFolder(self.folder)

    @property
    def place(self) -> Path:
        """What people are told of where it is."""
        return self.folder

    @property
    def results_file(self) -> Path:
        return self.files.results

    @property
    def scores_file(self) -> Path:
        """The file with the scores of every test task."""
        return self.files.test_tasks

    @property
    def score_name(self) -> str:
        """The score by which the run is judged."""
        return choose_score(self.results.get("test") or {}, self.directions)

    @property
    def directions(self) -> Directions:
        """The directions of its scores; empty for an older run."""
        return read_directions(self.results)

    def keys(self) -> set[str]:
        """Return the keys that `value` knows."""
        return {key for key, value in self.results.items() if _is_fact(key, value)} | set(self.settings)

    def task_scores(self, metric: str) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
        """Read index and score of every test task, [n] each; None if `scores_file` does not hold them."""
        if self.scores_change:
            return None
        broken = (
            OSError, KeyError, ValueError, EOFError, NotImplementedError, struct.error, zlib.error, zipfile.BadZipFile
        )  # fmt: skip
        try:
            with np.load(self.scores_file) as found:
                return found["index"].astype(np.int64), found[metric].astype(np.float64)
        except broken:
            return None

    @cached_property
    def scores_change(self) -> str | None:
        """What is wrong with `scores_file`, if it is not the one that the results were written with."""
        return self.files.find_change(self.scores_file, self.results)

    @cached_property
    def tests(self) -> list[tuple[Path, dict[str, Any], str | None]]:
        """The later tests of the run: the file of each, its content, and what is wrong with it."""
        files = sorted(path for path in self.files.evaluations.glob("*.json") if path.is_file())
        return [(file, *read_evaluation(file)) for file in files]

    def evaluations(self) -> list[dict[str, Any]]:
        """List the results of later tests of the run, in the order of source, ways, shots and queries."""
        found = [one for _, one, _ in self.tests if one]
        return sorted(
            found, key=lambda one: [one["data"], *(order_size(one[k]) for k in ("n_way", "k_shot", "n_query"))]
        )

    def find_damages(self) -> list[str]:
        """Describe the damaged files beside its results, on which the results do not depend."""
        lines = self.files.find_change(self.files.metrics, self.results)
        told = [f"{lines}: its curves may be wrong"] if lines else []
        told += [self.scores_change] if self.scores_change else []
        return told + [
            f"{problem}. The same metarun eval makes this test again" for *_, problem in self.tests if problem
        ]

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of metrics.jsonl, except one that is being written, was cut off or is no line of metrics."""
        path = self.files.metrics
        for line in path.read_text(errors="replace").splitlines() if path.is_file() else []:
            if found := read_metrics_line(line):
                yield found


def find_runs(paths: Iterable[Path]) -> list[Run]:
    """Find every run at or under `paths`, each once, in the order of their folders' names.

    Raises: ConfigError for a path that is not a folder.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            around = path.parent if path.parent.is_dir() else Path()
            known = [str(around / name.name) for name in around.iterdir() if name.is_dir()]
            raise ConfigError(f"there is no folder {path}{suggest(str(path), known)}")
        for folder in walk_runs(path):
            found.setdefault(folder.resolve(), folder)
    return [run for folder in sorted(found.values()) if (run := read_run(folder))]


def read_run(folder: Path) -> Run | None:
    """Read the run in `folder`; None if there is none."""
    files = RunFolder(folder)
    if irregular := files.find_irregular():
        return Run(folder, "damaged", {}, {}, (), irregular)
    results, damage = read_results_file(files.results)
    results = results if "status" in results else {}
    config, saved = read_yaml(files.settings), read_yaml(files.hydra)
    if not results and not config and not (damage and files.settings.exists()):
        return None
    if damage:
        damage = f"{damage}. {files.make_command('resume')} writes it anew"
    else:
        damage = find_disagreement(files, config, saved, results)
    hydra = as_mapping(saved.get("hydra"))
    settings = dict(_named(config))
    choices = as_mapping(as_mapping(hydra.get("runtime")).get("choices"))
    settings |= {name: choice for group, choice in choices.items() if (name := group.replace("/", ".")) in settings}
    settings = {key: _resolve(value, settings) for key, value in settings.items()}
    overrides = results.get("overrides") or read_overrides(hydra)
    state = "damaged" if damage and not _is_held(files.lock) else _find_state(files, results)
    return Run(folder, state, results, settings, tuple(overrides), damage)


def open_run(folder: Path) -> Run:
    """Read the run in `folder`. Raises: ConfigError if there is none, or its files do not belong together."""
    RunFolder(folder).check()
    run = read_run(folder)
    if run is None:
        raise ConfigError(
            f"{RunFolder(folder).settings} cannot be read, and there are no results: the run's settings are lost"
        )
    if run.damage:
        raise ConfigError(run.damage)
    return run


def read_evaluation(file: Path) -> tuple[dict[str, Any], str | None]:
    """Read the result of a test by `metarun eval`.

    Returns: its content, empty if it, or the scores of its tasks beside it, is missing or damaged, and then what is
        wrong.
    """
    found, problem = read_results_file(file, Evaluation)
    if change := find_change(file.with_suffix(".npz"), found.get("scores_sha256")):
        return {}, change
    return found, problem


def _is_fact(key: str, value: Any) -> bool:
    return isinstance(value, str | int | float) and key not in OUTCOME_FIELDS


def _find_state(files: RunFolder, results: Mapping[str, Any]) -> str:
    if _is_held(files.lock):
        return "running"
    if results and results["status"] != "running":
        return str(results["status"])
    return "died" if files.list_traces() else "unstarted"


def _is_held(path: Path) -> bool:
    """Return whether a living process holds the lock."""
    if not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # in another user's folder the lock cannot be tried; assume that it is free
        return False


def _named(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings by dotted key; a group's own name holds its class, and lists are text."""
    for key, value in leaves(config).items():
        group, _, name = key.rpartition(".")
        if name == "_target_":
            yield group, str(value).rsplit(".", 1)[-1]
        elif not name.startswith("_"):
            yield key, str(value) if isinstance(value, list) else value


def _resolve(value: Any, settings: Mapping[str, Any]) -> Any:
    """Replace `${a.b}` by setting a.b, through at most five references; keep a value that is more than a reference."""
    for _ in range(5):
        reference = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
        if not reference or reference[1] not in settings:
            break
        value = settings[reference[1]]
    return value
