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


FEW_TASKS = 20
"""Student's t is too short for the mean of paired differences of shares if fewer tasks differ, and less than half."""


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


def compare_paired(
    scores: NDArray[np.floating[Any]], reference: NDArray[np.floating[Any]], share: bool = False
) -> Difference:
    """Compare `scores` with `reference`, [n] each, task by task, by the paired t-test; `share` is as of `estimate`."""
    from scipy import special

    differences = np.asarray(scores, np.float64) - np.asarray(reference, np.float64)
    n, mean = len(differences), float(differences.mean())
    if n < 2:
        return Difference(mean, np.inf, 1.0)
    spread = np.sqrt(find_task_variance(differences, share))
    if spread == 0:  # the difference is the same on every task
        return Difference(mean, 0.0, float(mean == 0))
    half = float(special.stdtrit(n - 1, 0.975) * spread / np.sqrt(n))
    return Difference(mean, half, float(2 * special.stdtr(n - 1, -abs(mean) / (spread / np.sqrt(n)))))


def find_task_variance(differences: NDArray[np.float64], share: bool) -> float:
    """Return the variance of one task's paired difference [n].

    Where few tasks differ, as with accuracies near 1, those that were drawn tell too little of how often tasks do: an
    interval may have no width. For shares, two more tasks then count, which differ in either direction as much as those
    that do, or wholly where none does. For accuracies of 0.999 and 0.99 with 5 queries, the interval over 20 tasks then
    covers the difference in 100 % of the draws, without them in 69 %.

    Args:
        share: as of `estimate`.
    Reference: Agresti, Min. Simple Improved Confidence Intervals for Comparing Matched Proportions. Statistics in
        Medicine 24, 2005: half an observation more in each cell of the table of both methods' hits and errors.
    """
    variance = float(differences.var(ddof=1))
    sizes = np.abs(differences)
    squares = float(np.square(sizes).sum())
    differ = sizes.sum() ** 2 / squares if squares else 0.0  # so many tasks do, if all by as much
    if not share or differ >= min(FEW_TASKS, len(sizes) / 2):
        return variance
    size = squares / float(sizes.sum()) if squares else 1.0
    return max(variance, float(np.var([*differences, size, -size], ddof=1)))


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
