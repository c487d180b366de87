"""Sort finished runs into sets that may be compared, the sets into groups, and keep one run of each seed in a group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from metarun.core.errors import ConfigError, suggest
from metarun.core.whole import find_time
from metarun.report.runs import Run

COMPARABLE_FIELDS = (
    "data", "n_way", "k_shot", "n_query", "query", "bn", "trainval", "images", "split_sha256", "episode_sha256",
)  # fmt: skip
"""Fields of results.json in which runs must agree to be compared."""

IMAGES = COMPARABLE_FIELDS.index("images")
"""The place of the number of images, which early runs did not write."""

LEADING_KEYS = ("algo", "data", "backbone", "optim")
"""Keys that describe a run best; they come first."""

IGNORED_PREFIXES = ("paths.", "logger", "paper", "device", "deterministic", "threads", "run.processes", "data.cache")
"""Prefixes of settings that experiments do not vary on purpose."""


@dataclass(frozen=True)
class Group:
    """Runs that differ only in the keys that are averaged over.

    Attributes:
        values: the values of the comparison's keys, in their order.
        runs: one for each seed.
        scores: scores of every test task [seeds, tasks].
    """

    values: tuple[Any, ...]
    runs: tuple[Run, ...]
    scores: NDArray[np.float64]

    @property
    def short_name(self) -> str:
        """The values without their keys, as `maml 0.4`."""
        return " ".join(str(value) for value in self.values if value is not None) or "all runs"

    def average(self, *path: str) -> float | None:
        """Return the mean over the runs of a number in results.json; None if a run lacks it."""
        found: list[Any] = [run.results for run in self.runs]
        for name in path:
            found = [(value or {}).get(name) for value in found]
        return None if None in found else float(np.mean(found))

    def find_paper(self) -> Mapping[str, Any] | None:
        """Return the paper's number if the runs agree on one."""
        papers: list[Mapping[str, Any] | None] = [run.results.get("paper") for run in self.runs]
        return papers[0] if all(paper == papers[0] for paper in papers) else None


def split_comparable(runs: Iterable[Run]) -> dict[tuple[Any, ...], list[Run]]:
    """Split the runs by their values of COMPARABLE_FIELDS.

    A run that does not tell its number of images is with those that agree with it in all else, if they are one set.
    """
    keyed = [(tuple(run.results.get(field) or None for field in COMPARABLE_FIELDS), run) for run in runs]
    told: dict[tuple[Any, ...], set[tuple[Any, ...]]] = defaultdict(set)
    for key, _ in keyed:
        told[_without_images(key)] |= {key} if key[IMAGES] else set()
    sets: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for key, run in keyed:
        others = told[_without_images(key)]
        sets[next(iter(others)) if not key[IMAGES] and len(others) == 1 else key].append(run)
    return dict(sets)


def _without_images(key: tuple[Any, ...]) -> tuple[Any, ...]:
    return key[:IMAGES] + key[IMAGES + 1 :]


def select_scored(runs: Sequence[Run], metric: str | None) -> tuple[list[Run], list[str]]:
    """Select the finished `runs` whose tasks were scored in `metric`, with a note on each other run.

    If `metric` is None, each run counts by the score by which it is judged.

    Raises: ConfigError if there is no such run.
    """
    metrics = sorted({name for run in runs for name in run.results.get("test") or {}})
    if metric is not None and metric not in metrics:
        raise ConfigError(f"no run has the score {metric}{suggest(metric, metrics)}; there is {', '.join(metrics)}")
    kept, notes = [], []
    for run in runs:
        wanted = metric or run.score_name
        if wanted not in (run.results.get("test") or {}):
            notes.append(f"{run.place} is left out: it has no {wanted}")
        elif run.task_scores(wanted) is None:
            notes.append(f"{run.place} is left out: its {run.scores_file.name} is missing, damaged or changed")
        else:
            kept.append(run)
    if not kept:
        raise ConfigError(f"no run can be compared: {'; '.join(notes)}")
    return kept, notes


def select_where(runs: Sequence[Run], wanted: Mapping[str, str]) -> list[Run]:
    """Select the runs with the settings or facts `wanted`. Raises: ConfigError if there are none."""
    check_keys(runs, wanted, "--where")
    found = [run for run in runs if _has(run, wanted)]
    if not found:
        has = {key: sorted({str(run.value(key)) for run in runs}) for key in wanted}
        known = "; ".join(f"{key} is {', '.join(values)}" for key, values in has.items())
        raise ConfigError(f"--where {name_group(list(wanted), list(wanted.values()))}: no run is so; {known}")
    return found


def form_groups(
    runs: Sequence[Run], keys: Sequence[str], over: Sequence[str], metric: str
) -> tuple[list[Group], list[str]]:
    """Form the groups of one comparable set, each with its scores, and notes on them."""
    parts: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        parts[tuple(run.value(key) for key in keys)].append(run)
    groups, notes, tasks = [], [], None
    for values, members in parts.items():
        name = name_group(keys, values)
        if mixed := find_varied(members, over):
            notes.append(f"{name} mixes runs that differ in {_join_some(mixed)}: name it in --by, or in --over")
        kept, scores = [], []
        for said, run in _choose_newest(members, over, name):
            notes += said
            index, values_of_run = run.task_scores(metric) or (np.empty(0, np.int64), np.empty(0))
            tasks = index if tasks is None else tasks
            if np.array_equal(index, tasks):
                kept.append(run)
                scores.append(values_of_run)
            else:
                notes.append(f"{run.place} is left out: {run.scores_file.name} numbers its tasks in another way")
        if kept:
            groups.append(Group(values, tuple(kept), np.stack(scores)))
    if len({tuple(sorted(_read_values(run, over) for run in group.runs)) for group in groups}) > 1:
        notes.append(f"the groups do not have the same values of {', '.join(over)}")
    return groups, notes


def find_distinguishing(runs: Sequence[Run], over: Sequence[str]) -> tuple[str, ...]:
    """Find the few settings that distinguish `runs`, the most descriptive first, leaving out those in `over`.

    A setting that follows from earlier ones is left out, as algo.inner_lr if only one algorithm has it.
    """
    chosen: list[str] = []
    parts = 1
    for key in find_varied(runs, over):
        if (finer := len({tuple(run.value(name) for name in (*chosen, key)) for run in runs})) > parts:
            chosen, parts = [*chosen, key], finer
    return tuple(chosen)


def find_varied(runs: Sequence[Run], over: Sequence[str]) -> list[str]:
    """Find the settings that have more than one value among `runs`, leaving out those in `over`."""
    known = dict.fromkeys(
        [*LEADING_KEYS, *(key for run in runs for key in run.settings if not key.startswith(IGNORED_PREFIXES))]
    )
    return [key for key in known if key not in over and len({run.value(key) for run in runs}) > 1]


def check_keys(runs: Sequence[Run], keys: Iterable[str], flag: str) -> None:
    """Raise ConfigError for a key that no run has."""
    known = set().union(*(run.keys() for run in runs))
    for key in keys:
        if key not in known:
            raise ConfigError(f"{flag} {key}: no run has this setting{suggest(key, sorted(known))}")


def find_group(
    groups: Sequence[Group], keys: Sequence[str], wanted: Mapping[str, str], flag: str = "--baseline"
) -> int | None:
    """Return the number of the one group whose runs all have the `wanted` settings, which `flag` named, or None.

    Raises: ConfigError if several groups do.
    """
    found = [i for i, group in enumerate(groups) if all(_has(run, wanted) for run in group.runs)]
    if len(found) > 1:
        names = "; ".join(name_group(keys, groups[i].values) for i in found)
        raise ConfigError(f"{flag} {name_group(list(wanted), list(wanted.values()))} is {len(found)} groups: {names}")
    return found[0] if found else None


def check_group(wanted: Mapping[str, str], tables: Sequence[tuple[Sequence[Group], Sequence[str]]], flag: str) -> None:
    """Raise ConfigError if the settings `wanted`, which `flag` named, pick no group of any table, or several of one.

    Args:
        tables: the groups and the keys of each.
    """
    if all(find_group(groups, keys, wanted, flag) is None for groups, keys in tables):
        asked = name_group(list(wanted), list(wanted.values()))
        names = [name_group(keys, group.values) for groups, keys in tables for group in groups]
        raise ConfigError(f"{flag} {asked} is no group{suggest(asked, names)}; there is {'; '.join(names)}")


def name_group(keys: Sequence[str], values: Sequence[Any]) -> str:
    """Return a name for the group with these values."""
    return ",".join(f"{key}={value}" for key, value in zip(keys, values, strict=True)) or "all runs"


def _has(run: Run, wanted: Mapping[str, str]) -> bool:
    return all(str(run.value(key)) == text or run.value(key) == yaml.safe_load(text) for key, text in wanted.items())


def _choose_newest(runs: Sequence[Run], over: Sequence[str], name: str) -> list[tuple[list[str], Run]]:
    """Choose the newest run of each seed, with a note if there are several."""
    seeds: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        seeds[_read_values(run, over)].append(run)
    found = []
    for seed, same in sorted(seeds.items()):
        *older, newest = sorted(same, key=lambda run: (find_time(run.results_file) or 0, run.place))
        which = ", ".join(f"{key} {value}" for key, value in zip(over, seed, strict=True)) or "it"
        left = ", ".join(str(run.place) for run in older)
        note = f"{name}: {which} was run {len(same)} times; {newest.place} is the newest and counts, not {left}"
        found.append(([note] if older else [], newest))
    return found


def _read_values(run: Run, over: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(run.value(key)) for key in over)


def _join_some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
