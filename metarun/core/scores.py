"""Scores: which way is better, which tells most, and a mean over tasks with its interval."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarun.core.words import plain

MAXIMISED = frozenset({"accuracy", "return", "log_likelihood"})
"""Every other score is minimised."""

PRIMARY_SCORES = ("accuracy", "return", "log_likelihood", "mse")
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


def better(score: str, new: float, old: float | None) -> bool:
    """Whether `new` beats `old` (None: nothing yet) in `score`."""
    return old is None or sign(score) * (new - old) > 0


def sign(score: str) -> int:
    """1 for a score to maximise, -1 for one to minimise."""
    return 1 if plain(score) in MAXIMISED else -1


def selection_score(names: Iterable[str]) -> str:
    """The score a checkpoint is chosen by, and a run is known by, of those that it has."""
    names = set(names)
    return next((name for name in PRIMARY_SCORES if name in names), "loss")
