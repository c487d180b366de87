"""Differences between runs that were tested on the same tasks, and intervals over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarun.core.scores import estimate
from metarun.core.words import format_value

MIN_SEEDS = 3
"""Least seeds for an interval over seeds, or a test of a difference; fewer do not show how far seeds spread."""


def estimate_seed_interval(means: NDArray[np.floating[Any]]) -> float | None:
    """Return the half-width of the 95 % interval of the mean over seeds; None for fewer seeds than MIN_SEEDS.

    Args:
        means: the means of the seeds [n]; the interval is Student's t over them.
    """
    return estimate(means).ci95 if len(means) >= MIN_SEEDS else None


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences, the half-width of its 95 % interval, and the two-sided p-value of a zero mean."""

    mean: float
    ci95: float
    p: float


def format_difference(score: str, found: Difference | None) -> str:
    """Format a difference and the half-width of its interval, as +1.20 ± 0.40; an empty string for none."""
    if found is None:
        return ""
    sign = "-" if found.mean < 0 else "+"
    return f"{sign}{format_value(score, abs(found.mean))} ± {format_value(score, found.ci95)}"


def compare_paired(scores: NDArray[np.floating[Any]], reference: NDArray[np.floating[Any]]) -> Difference:
    """Compare `scores` with `reference`, [n] each, task by task, by the paired t-test."""
    from scipy import special

    differences = np.asarray(scores, np.float64) - np.asarray(reference, np.float64)
    found = estimate(differences)
    error = differences.std(ddof=1) / np.sqrt(len(differences)) if len(differences) > 1 else np.inf
    if error == 0:  # the difference is the same on every task
        return Difference(found.mean, found.ci95, float(found.mean == 0))
    p = 2 * special.stdtr(len(differences) - 1, -abs(found.mean) / error) if len(differences) > 1 else 1.0
    return Difference(found.mean, found.ci95, float(p))


def correct_by_holm(p: Sequence[float]) -> list[float]:
    """Return step-down adjusted p-values.

    If each adjusted p-value below 0.05 counts as a finding, the probability of any wrong finding is at most 5 %. The
    i-th smallest of m is multiplied by m - i + 1, raised to those before it if it is smaller, and cut at 1.

    Reference: Holm. A simple sequentially rejective multiple test procedure. Scand. J. Statistics 6, 1979.
    """
    adjusted = [0.0] * len(p)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = highest
    return adjusted
