"""How many seeds would show a difference of a given size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metarun.report.stats import MIN_SEEDS
from metarun.report.two_levels import SIGNIFICANCE_LEVEL, add_variances, measure_spread

POWER = 0.8
"""The share of repetitions in which a difference of that size would be found."""

MOST_SEEDS = 100
"""More seeds are not counted."""


def count_seeds(scores: NDArray[np.float64], reference: NDArray[np.float64], effect: float) -> int | None:
    """Count the seeds of each group with which a difference of `effect` would be found with a probability of POWER.

    Seeds and tasks are taken to vary as they do in `scores` [S, T] and `reference` [R, T], on the same T test tasks.
    The test is that of two_levels.py, for one comparison. None if a group has fewer seeds than MIN_SEEDS, or if more
    than MOST_SEEDS are needed.
    """
    if min(len(scores), len(reference)) < MIN_SEEDS:
        return None
    of_seeds, (of_tasks, freedom) = measure_spread(scores, reference)
    for n in range(MIN_SEEDS, MOST_SEEDS + 1):
        parts = [(variance / n, n - 1.0) for variance, _ in of_seeds]
        if find_power(effect, *add_variances([*parts, (of_tasks / scores.shape[1], freedom)])) >= POWER:
            return n
    return None


def count_tasks(scores: NDArray[np.float64], reference: NDArray[np.float64], effect: float) -> int:
    """Count the test tasks without which no number of seeds would be enough: seeds then add no variance at all."""
    from scipy import special

    _, (of_tasks, _) = measure_spread(scores, reference)
    quantiles = special.ndtri(1 - SIGNIFICANCE_LEVEL / 2) + special.ndtri(POWER)
    return int(np.ceil(of_tasks * (quantiles / effect) ** 2))


def find_power(effect: float, error: float, freedom: float) -> float:
    """Return the probability that a two-sided t-test finds a difference of `effect` > 0.

    Args:
        error: the standard error of the estimated difference.
        freedom: its degrees of freedom.
    """
    from scipy import special

    if error == 0:
        return 1.0
    threshold = special.stdtrit(freedom, 1 - SIGNIFICANCE_LEVEL / 2)
    return float(1 - special.nctdtr(freedom, effect / error, threshold))
