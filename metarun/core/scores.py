"""Scores: whether higher or lower is better, which score counts most, and the mean over tasks with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metarun.core.errors import ConfigError
from metarun.core.words import drop_suffix

Directions = Mapping[str, Literal["higher", "lower"]]
"""Whether higher or lower is better, by a score's name without suffix."""

KNOWN_DIRECTIONS: Directions = {
    "loss": "lower",
    "accuracy": "higher",
    "return": "higher",
    "log_likelihood": "higher",
    "mse": "lower",
}
"""The directions of well-known scores; a learner declares those of its own scores."""

PRIMARY_SCORES = ("accuracy", "return", "log_likelihood", "mse")
"""Scores by which a run is judged, the most important first."""


RESERVED = ("step", "split", "seconds", "tasks_per_second", "index")
"""Fields of metrics.jsonl and test_tasks.npz that a score or a metric of that name would write over."""

STUDENT, WILSON = "Student t over tasks", "Wilson over tasks"
"""Kinds of intervals."""


@dataclass(frozen=True)
class Estimate:
    """A mean over tasks and the half-width of its 95 % interval, as `interval` says."""

    mean: float
    ci95: float
    n_tasks: int
    interval: str = STUDENT

    def as_json(self) -> dict[str, Any]:
        return {"mean": self.mean, "ci95": self.ci95, "n_tasks": self.n_tasks, "interval": self.interval}


def estimate(scores: NDArray[np.floating[Any]], share: bool = False) -> Estimate:
    """Return the mean of per-task scores [n] with its interval, which is infinite for a single task.

    Student's t over tasks, as papers have it. Where the scores are shares and only few tasks have an error (or a hit),
    that is too short, or zero: of accuracies of 0.99 with 5 queries it holds 63 % of the time over 20 tasks, and 88 %
    over 100. There it is Wilson's interval to its farther end, 99 % and more in these two cases.

    Args:
        share: the scores are shares of queries, in 0..1.
    """
    from scipy import special  # takes half a second to import: not at the start of a run

    n = len(scores)
    values = np.asarray(scores, np.float64)
    if n < 2:
        return Estimate(float(values.mean()), np.inf, n)
    quantile = float(special.stdtrit(n - 1, 0.975))
    half = float(quantile * values.std(ddof=1) / np.sqrt(n))
    if share and _has_few_errors(values):
        return Estimate(float(values.mean()), max(half, _reach_of_wilson(values, quantile)), n, WILSON)
    return Estimate(float(values.mean()), half, n)


def check_name(name: str) -> None:
    """Raises: ConfigError for the name of a score or a metric that a run's files have for something else."""
    if name in RESERVED or name.startswith("lr_"):
        raise ConfigError(f"a score or metric of a learner is called {name}, which a run's files have: rename it")


def find_direction(score: str, own: Directions = MappingProxyType({})) -> Literal["higher", "lower"] | None:
    """Return whether a higher or a lower `score` is better, as its learner declares (`own`) or as is well known.

    Returns: None if neither says.
    """
    return own.get(drop_suffix(score)) or KNOWN_DIRECTIONS.get(drop_suffix(score))


def list_directions(scores: Iterable[str], own: Directions) -> dict[str, str]:
    """Return the directions of all scores that have one, by their names without suffix, for results.json."""
    return {drop_suffix(score): found for score in scores if (found := find_direction(score, own))}


def read_directions(results: Mapping[str, Any]) -> Directions:
    """Return the directions in a run's results.json; empty for an older run."""
    found: Directions | None = results.get("directions")
    return found or {}


def is_better(score: str, new: float, old: float | None, own: Directions = MappingProxyType({})) -> bool:
    """Return whether `new` beats `old` (None: there is none yet) in `score`; a number beats what is none.

    Raises: ValueError as `find_sign`.
    """
    return old is None or (np.isnan(old) and not np.isnan(new)) or find_sign(score, own) * (new - old) > 0


def find_sign(score: str, own: Directions = MappingProxyType({})) -> int:
    """Return 1 for a score to maximise, -1 for a score to minimise.

    Raises: ValueError if the score has no direction.
    """
    found = find_direction(score, own)
    if found is None:
        raise ValueError(
            f"it is not known whether a higher or a lower {score} is better: declare it in the learner's class, as "
            f'directions = {{"{drop_suffix(score)}": "higher"}}'
        )
    return 1 if found == "higher" else -1


def choose_score(names: Iterable[str], own: Directions = MappingProxyType({})) -> str:
    """Return the one of the scores `names` by which checkpoints are chosen and the run is judged.

    It is the first of PRIMARY_SCORES that is there, else the first to which the learner gives a direction (`own`), else
    the loss.
    """
    names = set(names)
    candidates = (*PRIMARY_SCORES, *(name for name in own if name != "loss"))
    return next((name for name in candidates if name in names), "loss")


def _has_few_errors(shares: NDArray[np.float64]) -> bool:
    """Return whether Student's t is too short for the mean of the shares [n], since nearly all are 1, or nearly all 0.

    By Cochran's rule it takes n >= 25 g^2 for a skewness g. Errors in a fraction f of the tasks have the skewness
    (1 - 2 f) / sqrt(f (1 - f)); f is the number of tasks that would have as uneven errors if each had all or none.
    """
    errors = min(1 - shares, shares, key=np.sum)
    squares = np.square(errors).mean()
    f = errors.mean() ** 2 / squares if squares > 0 else 0.0
    return bool(f < 0.5 and len(shares) * f * (1 - f) < 25 * (1 - 2 * f) ** 2)


def _reach_of_wilson(shares: NDArray[np.float64], quantile: float) -> float:
    """Return how far the farther end of Wilson's interval is from the mean of the shares [n].

    The interval counts as many independent queries as give the variance between tasks, at least one for each task; one
    where all tasks are equal, since that tells nothing of how much queries of a task are alike.
    """
    n, mean, variance = len(shares), shares.mean(), shares.var(ddof=1)
    count = max(n * mean * (1 - mean) / variance, n) if variance > 0 else n
    shrink = 1 + quantile**2 / count
    centre = (mean + quantile**2 / (2 * count)) / shrink
    half = quantile / shrink * np.sqrt(mean * (1 - mean) / count + quantile**2 / (4 * count**2))
    return float(abs(mean - centre) + half)
