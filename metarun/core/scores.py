"""Scores: whether higher or lower is better, which score counts most, and the mean over tasks with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

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


@dataclass(frozen=True)
class Estimate:
    """A mean over tasks and the half-width of its 95 % interval, Student t over per-task scores."""

    mean: float
    ci95: float
    n_tasks: int

    def as_json(self) -> dict[str, Any]:
        return {"mean": self.mean, "ci95": self.ci95, "n_tasks": self.n_tasks, "interval": "Student t over tasks"}


def estimate(scores: NDArray[np.floating[Any]]) -> Estimate:
    """Return the mean of per-task scores [n] with its interval, which is infinite for a single task."""
    from scipy import special  # takes half a second to import: not at the start of a run

    n = len(scores)
    values = np.asarray(scores, np.float64)
    half = special.stdtrit(n - 1, 0.975) * values.std(ddof=1) / np.sqrt(n) if n > 1 else np.inf
    return Estimate(float(values.mean()), float(half), n)


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
    """Return whether `new` beats `old` (None: there is none yet) in `score`. Raises: ValueError as `find_sign`."""
    return old is None or find_sign(score, own) * (new - old) > 0


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
