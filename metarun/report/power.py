"""How many seeds would show a difference of a given size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metarun.report.stats import MIN_SEEDS
from metarun.report.two_levels import SIGNIFICANCE_LEVEL, Part, measure_spread

POWER = 0.8
"""The share of repetitions in which a difference of that size would be found."""

MOST_SEEDS = 100
"""More seeds are not counted."""

DRAWN_VARIANCES = 40
"""Estimates of the variance of each group's seeds over which the power is a mean: equally probable ones."""


def count_seeds(
    scores: NDArray[np.float64], reference: NDArray[np.float64], effect: float, share: bool = False
) -> int | None:
    """Count the seeds of each group with which a difference of `effect` would be found with a probability of POWER.

    Seeds and tasks are taken to vary as they do in `scores` [S, T] and `reference` [R, T], on the same T test tasks.
    The test is that of two_levels.py, for one comparison; `share` is as of `estimate`. None if a group has fewer seeds
    than MIN_SEEDS, or if more than MOST_SEEDS are needed.
    """
    if min(len(scores), len(reference)) < MIN_SEEDS:
        return None
    of_seeds, of_tasks = measure_spread(scores, reference, share)
    for n in range(MIN_SEEDS, MOST_SEEDS + 1):
        parts = [Part(one.variance / n, n - 1.0) for one in of_seeds]
        if find_power(effect, [*parts, Part(of_tasks.variance / scores.shape[1], of_tasks.freedom)]) >= POWER:
            return n
    return None


def count_tasks(scores: NDArray[np.float64], reference: NDArray[np.float64], effect: float, share: bool = False) -> int:
    """Count the test tasks without which no number of seeds would be enough: seeds then add no variance at all."""
    from scipy import special

    of_tasks = measure_spread(scores, reference, share)[1].variance
    quantiles = special.ndtri(1 - SIGNIFICANCE_LEVEL / 2) + special.ndtri(POWER)
    return int(np.ceil(of_tasks * (quantiles / effect) ** 2))


def find_power(effect: float, parts: Sequence[Part]) -> float:
    """Return the probability that the test finds a difference of `effect` > 0.

    It is a mean over what the estimates of the first two parts may be; that of the third, over tasks, is taken to be
    exact.

    Args:
        parts: the true variances of the estimated difference, and the degrees of freedom with which each is estimated.
    """
    from scipy import special

    levels = (np.arange(DRAWN_VARIANCES) + 0.5) / DRAWN_VARIANCES
    variance, freedom = np.array(parts).T
    if not variance.any():
        return 1.0
    squares = variance * special.stdtrit(freedom, SIGNIFICANCE_LEVEL / 2) ** 2  # of the half-widths
    first, second = (
        square * special.chdtri(degrees, 1 - levels) / degrees
        for square, degrees in zip(squares[:2], freedom[:2], strict=True)
    )
    half = np.sqrt(first[:, None] + second + squares[2])  # [DRAWN_VARIANCES, DRAWN_VARIANCES]
    error = np.sqrt(variance.sum())
    return float(np.mean(special.ndtr((effect - half) / error) + special.ndtr((-effect - half) / error)))
