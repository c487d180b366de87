"""Means with honest intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

HIGHER_IS_BETTER = frozenset({"accuracy", "return"})
"""Scores to maximise; every other is minimised."""


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
    n = len(scores)
    values = np.asarray(scores, np.float64)
    half = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n) if n > 1 else np.inf
    return Estimate(float(values.mean()), float(half), n)


def better(score: str, new: float, old: float | None) -> bool:
    """Whether `new` beats `old` (None: nothing yet) in `score`."""
    return old is None or (new > old if score in HIGHER_IS_BETTER else new < old)


def selection_score(names: list[str]) -> str:
    """The score a checkpoint is chosen by: accuracy or return where there is one, else the loss."""
    return next((name for name in sorted(names) if name in HIGHER_IS_BETTER), "loss")
