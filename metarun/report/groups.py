"""Which finished runs belong together: sets that may be compared, groups in a set, one run a seed in a group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from metarun.core.errors import ConfigError, suggest
from metarun.report.runs import Run

APART = ("data", "n_way", "k_shot", "n_query", "bn", "trainval", "split_sha256", "episode_sha256")
"""Fields of results.json in which runs that are compared must agree."""

LEADING = ("algo", "data", "backbone", "optim")
"""Keys that say best what a run is, tried first."""

ASIDE = ("paths.", "logger", "paper", "device", "deterministic", "threads", "run.processes", "data.cache")
"""Beginnings of settings that are not what an experiment varies."""


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the keys averaged over.

    Attributes:
        values: what the group is, in the order of the comparison's keys.
        runs: one for each seed.
        scores: of every test task, [seeds, tasks].
    """

    values: tuple[Any, ...]
    runs: tuple[Run, ...]
    scores: NDArray[np.float64]

    def mean_of(self, *path: str) -> float | None:
        """The mean over the runs of a number in results.json; None where a run lacks it."""
        found: list[Any] = [run.results for run in self.runs]
        for name in path:
            found = [(value or {}).get(name) for value in found]
        return None if None in found else float(np.mean(found))

    def paper(self) -> Mapping[str, Any] | None:
        """The paper's number, where the runs agree on one."""
        papers: list[Mapping[str, Any] | None] = [run.results.get("paper") for run in self.runs]
        return papers[0] if all(paper == papers[0] for paper in papers) else None


def comparable_sets(runs: Iterable[Run]) -> dict[tuple[Any, ...], list[Run]]:
    """Runs by their values of APART."""
    sets: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        sets[tuple(run.results.get(field) or None for field in APART)].append(run)
    return dict(sets)


def with_scores(runs: Sequence[Run], metric: str | None) -> tuple[list[Run], list[str]]:
    """Those of the finished `runs` whose tasks were scored in `metric`, and a note on each other one.

    None is the score that each is known by.

    Raises: ConfigError if there is none.
    """
    metrics = sorted({name for run in runs for name in run.results.get("test") or {}})
    if metric is not None and metric not in metrics:
        raise ConfigError(f"no run has the score {metric}{suggest(metric, metrics)}; there is {', '.join(metrics)}")
    kept, notes = [], []
    for run in runs:
        wanted = metric or run.score_name
        if wanted not in (run.results.get("test") or {}):
            notes.append(f"{run.folder} is left out: it has no {wanted}")
        elif run.task_scores(wanted) is None:
            notes.append(f"{run.folder} is left out: its test_tasks.npz is missing or broken")
        else:
            kept.append(run)
    if not kept:
        raise ConfigError(f"no run can be compared: {'; '.join(notes)}")
    return kept, notes


def groups_of(
    runs: Sequence[Run], keys: Sequence[str], over: Sequence[str], metric: str
) -> tuple[list[Group], list[str]]:
    """The groups of one comparable set, each with its scores, and what has to be said of them."""
    parts: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        parts[tuple(run.value(key) for key in keys)].append(run)
    groups, notes, tasks = [], [], None
    for values, members in parts.items():
        name = label(keys, values)
        if mixed := varied(members, over):
            notes.append(f"{name} mixes runs that differ in {_some(mixed)}: name it in --by, or in --over")
        kept, scores = [], []
        for said, run in _one_each(members, over, name):
            notes += said
            index, values_of_run = run.task_scores(metric) or (np.empty(0, np.int64), np.empty(0))
            tasks = index if tasks is None else tasks
            if np.array_equal(index, tasks):
                kept.append(run)
                scores.append(values_of_run)
            else:
                notes.append(f"{run.folder} is left out: test_tasks.npz numbers its tasks in another way")
        if kept:
            groups.append(Group(values, tuple(kept), np.stack(scores)))
    if len({tuple(sorted(_at(run, over) for run in group.runs)) for group in groups}) > 1:
        notes.append(f"the groups do not have the same values of {', '.join(over)}")
    return groups, notes


def differing(runs: Sequence[Run], over: Sequence[str]) -> tuple[str, ...]:
    """As few settings as tell apart what differs between `runs` other than in `over`, the most telling first.

    A setting that follows from those before it, as algo.inner_lr does where one algorithm alone has it, is not needed.
    """
    chosen: list[str] = []
    parts = 1
    for key in varied(runs, over):
        if (finer := len({tuple(run.value(name) for name in (*chosen, key)) for run in runs})) > parts:
            chosen, parts = [*chosen, key], finer
    return tuple(chosen)


def varied(runs: Sequence[Run], over: Sequence[str]) -> list[str]:
    """Settings with more than one value among `runs`."""
    known = dict.fromkeys([*LEADING, *(key for run in runs for key in run.settings if not key.startswith(ASIDE))])
    return [key for key in known if key not in over and len({run.value(key) for run in runs}) > 1]


def notes_on(runs: Sequence[Run], keys: Sequence[str], over: Sequence[str]) -> list[str]:
    """Differences between `runs` that the `keys` of the table do not show."""
    besides = [key for key in varied(runs, over) if key not in keys and all(key in run.settings for run in runs)]
    notes = [f"these settings differ along with them: {_some(besides)}"] if besides and keys else []
    commits = {(run.results.get("git") or {}).get("commit") for run in runs}
    return notes + ([f"the runs are of {len(commits)} versions of the code"] if len(commits) > 1 else [])


def check_keys(runs: Sequence[Run], keys: Iterable[str], flag: str) -> None:
    """Raises: ConfigError for a key that no run has."""
    known = set().union(*(run.keys() for run in runs))
    for key in keys:
        if key not in known:
            raise ConfigError(f"{flag} {key}: no run has this setting{suggest(key, sorted(known))}")


def group_of(groups: Sequence[Group], keys: Sequence[str], wanted: Mapping[str, str]) -> int | None:
    """The number of the one group whose runs all have the `wanted` settings, or None.

    Raises: ConfigError if several groups do.
    """
    found = [i for i, group in enumerate(groups) if all(_has(run, wanted) for run in group.runs)]
    if len(found) > 1:
        names = "; ".join(label(keys, groups[i].values) for i in found)
        raise ConfigError(f"--baseline {label(list(wanted), list(wanted.values()))} is {len(found)} groups: {names}")
    return found[0] if found else None


def label(keys: Sequence[str], values: Sequence[Any]) -> str:
    """A group in words."""
    return ",".join(f"{key}={value}" for key, value in zip(keys, values, strict=True)) or "all runs"


def _has(run: Run, wanted: Mapping[str, str]) -> bool:
    return all(str(run.value(key)) == text or run.value(key) == yaml.safe_load(text) for key, text in wanted.items())


def _one_each(runs: Sequence[Run], over: Sequence[str], name: str) -> list[tuple[list[str], Run]]:
    """The newest run of each seed, with a note where there are several."""
    seeds: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        seeds[_at(run, over)].append(run)
    found = []
    for seed, same in sorted(seeds.items()):
        *older, newest = sorted(same, key=lambda run: (run.files.results.stat().st_mtime_ns, run.folder))
        which = ", ".join(f"{key} {value}" for key, value in zip(over, seed, strict=True)) or "it"
        left = ", ".join(str(run.folder) for run in older)
        note = f"{name}: {which} was run {len(same)} times; {newest.folder} is the newest and counts, not {left}"
        found.append(([note] if older else [], newest))
    return found


def _at(run: Run, over: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(run.value(key)) for key in over)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
