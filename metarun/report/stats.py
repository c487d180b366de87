"""Means with honest intervals, and differences of runs that were tested on the same tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarun.report.words import plain

MAXIMISED = frozenset({"accuracy", "return", "log_likelihood"})
"""Every other score is minimised."""

TELLING = ("accuracy", "return", "log_likelihood", "mse")
"""Scores that tell how well a run did; where it has none of them, its loss does."""


@dataclass(frozen=True)
class Estimate:
    """A mean over tasks and the half-width of its 95 % interval, Student t over per-task scores."""

    mean: float
    ci95: float
    n_tasks: int

    def as_json(self) -> dict[str, Any]:
        return {"mean": self.mean, "ci95": self.ci95, "n_tasks": self.n_tasks, "interval": "Student t over tasks"}


def estimate(scores: NDArray[np.floating[Any]]) -> Estimate:
    """The mean of per-task scores [n]; the interval is infinite for a single task."""
    from scipy import special  # takes half a second to import: not at the start of a run

    n = len(scores)
    values = np.asarray(scores, np.float64)
    half = special.stdtrit(n - 1, 0.975) * values.std(ddof=1) / np.sqrt(n) if n > 1 else np.inf
    return Estimate(float(values.mean()), float(half), n)


def seed_interval(means: NDArray[np.floating[Any]]) -> float | None:
    """Half-width of the 95 % interval of the mean over seeds, Student t over per-seed means [n]; None for one seed."""
    return estimate(means).ci95 if len(means) > 1 else None


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences, the half-width of its 95 % interval, and the two-sided p-value of a zero mean."""

    mean: float
    ci95: float
    p: float

    def excludes_zero(self) -> bool:
        return abs(self.mean) > self.ci95


def paired(scores: NDArray[np.floating[Any]], reference: NDArray[np.floating[Any]]) -> Difference:
    """`scores` less `reference`, both [n], task by task: the paired t-test."""
    from scipy import special

    differences = np.asarray(scores, np.float64) - np.asarray(reference, np.float64)
    found = estimate(differences)
    error = differences.std(ddof=1) / np.sqrt(len(differences)) if len(differences) > 1 else np.inf
    if error == 0:  # the same on every task, or another by the same amount on every task
        return Difference(found.mean, found.ci95, float(found.mean == 0))
    p = 2 * special.stdtr(len(differences) - 1, -abs(found.mean) / error) if len(differences) > 1 else 1.0
    return Difference(found.mean, found.ci95, float(p))


def holm(p: Sequence[float]) -> list[float]:
    """Step-down adjusted p-values: each below 0.05 is a finding while all findings together are wrong 5 times in 100.

    The i-th smallest of m is multiplied by m - i + 1, kept no smaller than those before it, and cut at 1.

    Reference: Holm. A simple sequentially rejective multiple test procedure. Scand. J. Statistics 6, 1979.
    """
    adjusted = [0.0] * len(p)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = highest
    return adjusted


def better(score: str, new: float, old: float | None) -> bool:
    """Whether `new` beats `old` (None: nothing yet) in `score`."""
    return old is None or sign(score) * (new - old) > 0


def sign(score: str) -> int:
    """1 for a score to maximise, -1 for one to minimise."""
    return 1 if plain(score) in MAXIMISED else -1


def selection_score(names: Iterable[str]) -> str:
    """The score a checkpoint is chosen by, and a run is known by, of those that it has."""
    names = set(names)
    return next((name for name in TELLING if name in names), "loss")
