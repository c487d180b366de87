"""Scores: which way is better, which tells most, and a mean over tasks with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metarun.core.words import plain

Directions = Mapping[str, Literal["higher", "lower"]]
"""Which way is better, by a score's plain name."""

KNOWN: Directions = {
    "loss": "lower",
    "accuracy": "higher",
    "return": "higher",
    "log_likelihood": "higher",
    "mse": "lower",
}
"""Of scores that every reader knows; a learner says it of its own."""

PRIMARY_SCORES = ("accuracy", "return", "log_likelihood", "mse")
"""Scores that tell how well a run did, the most telling first."""


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


def direction(score: str, own: Directions = MappingProxyType({})) -> Literal["higher", "lower"] | None:
    """Which way `score` is better, by what its learner says (`own`) or what everybody knows; None if nobody says."""
    return own.get(plain(score)) or KNOWN.get(plain(score))


def directions_of(scores: Iterable[str], own: Directions) -> dict[str, str]:
    """The direction of each of the scores that has one, by plain name: what is kept of a run."""
    return {plain(score): found for score in scores if (found := direction(score, own))}


def directions_in(results: Mapping[str, Any]) -> Directions:
    """Which way the scores of a run are better, by its results.json; an older run says nothing."""
    found: Directions | None = results.get("directions")
    return found or {}


def better(score: str, new: float, old: float | None, own: Directions = MappingProxyType({})) -> bool:
    """Whether `new` beats `old` (None: nothing yet) in `score`. Raises: ValueError as `sign`."""
    return old is None or sign(score, own) * (new - old) > 0


def sign(score: str, own: Directions = MappingProxyType({})) -> int:
    """1 for a score to maximise, -1 for one to minimise.

    Raises: ValueError if nobody says which of them it is.
    """
    found = direction(score, own)
    if found is None:
        raise ValueError(
            f"nobody says whether a higher or a lower {score} is better: its learner does, with "
            f'directions = {{"{plain(score)}": "higher"}}'
        )
    return 1 if found == "higher" else -1


def selection_score(names: Iterable[str], own: Directions = MappingProxyType({})) -> str:
    """The score a checkpoint is chosen by, and a run is known by, of those that it has.

    The first of PRIMARY_SCORES that is there, or else of those that its learner gives a direction (`own`), or its loss.
    """
    names = set(names)
    telling = (*PRIMARY_SCORES, *(name for name in own if name != "loss"))
    return next((name for name in telling if name in names), "loss")
