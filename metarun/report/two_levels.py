"""Test whether groups of runs differ by more than other seeds and other test tasks would change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metarun.report.stats import MIN_SEEDS, Difference, correct_by_holm, find_task_variance

SIGNIFICANCE_LEVEL = 0.05
"""A difference with a corrected p-value below this is a finding."""

LOWEST_LOG_LEVEL = -600.0
"""Smaller p-values are called that of this logarithm."""

Scores = NDArray[np.float64]


class Part(NamedTuple):
    """A part of the variance of an estimate: the estimated variance, and its degrees of freedom."""

    variance: float
    freedom: float


def measure_spread(scores: Scores, reference: Scores, share: bool = False) -> tuple[list[Part], Part]:
    """Measure how uncertain the difference of two groups' means is: `scores` [S, T] and `reference` [R, T].

    Returns: the variance of one seed's mean for each group; and that of one task's difference, in which the groups are
        paired.
    """
    of_seeds = [Part(float(group.mean(1).var(ddof=1)), len(group) - 1.0) for group in (scores, reference)]
    paired = scores.mean(0) - reference.mean(0)  # [T]
    return of_seeds, Part(find_task_variance(paired, share), len(paired) - 1.0)


def add_intervals(parts: Sequence[Part], level: float) -> float:
    """Return the half-width of an interval that misses the true value with a probability of `level` at most.

    Each part of the variance would have an interval of its own, with Student's t of its own degrees of freedom; the
    squares of their half-widths add up. Satterthwaite's single t for the whole variance is narrower, and with three
    seeds that spread more than the other group's misses in 7 % instead of 5.

    Args:
        parts: independent ones.
        level: the probability of both tails together.
    Reference: Banerjee. On Confidence Interval for Two-Means Problem Based on Separate Estimates of Variances and
        Tabulated Values of t-Table. Sankhya A 23, 1961.
    """
    variance, freedom = np.array(parts).T
    return _add_squares(variance, freedom, level)


def find_level(parts: Sequence[Part], distance: float) -> float:
    """Return the level of the interval whose half-width is `distance` >= 0: the two-sided p-value of that distance."""
    if distance == 0:
        return 1.0
    variance, freedom = np.array(parts).T
    low, high = LOWEST_LOG_LEVEL, 0.0  # of the level's logarithm; the half-width falls with it
    for _ in range(48):
        middle = (low + high) / 2
        if _add_squares(variance, freedom, math.exp(middle)) > distance:
            low = middle
        else:
            high = middle
    return math.exp(high)


def _add_squares(variance: Scores, freedom: Scores, level: float) -> float:
    from scipy import special  # takes half a second to import

    return math.sqrt(variance @ special.stdtrit(freedom, level / 2) ** 2)


def estimate_parts(scores: Scores, reference: Scores, share: bool = False) -> tuple[float, list[Part]] | None:
    """Return the difference of two groups' means, and the parts of its variance.

    These are the variances of the means of seeds, which are independent in the groups, and that of the tasks, on which
    the groups are paired. Interactions of seeds and tasks count in both, so the variance is too large rather than too
    small. None if a group has fewer seeds than MIN_SEEDS.

    Args:
        scores: a group's scores [S, T].
        reference: those of the other group [R, T] on the same T test tasks.
        share: they are shares of queries, see find_task_variance.
    """
    if min(len(scores), len(reference)) < MIN_SEEDS:
        return None
    of_seeds, of_tasks = measure_spread(scores, reference, share)
    counts = (len(scores), len(reference), scores.shape[1])
    mean = float((scores.mean(0) - reference.mean(0)).mean())
    return mean, [Part(one.variance / n, one.freedom) for one, n in zip((*of_seeds, of_tasks), counts, strict=True)]


def estimate_difference(scores: Scores, reference: Scores, share: bool = False) -> Difference | None:
    """Estimate the difference of two groups' means, `scores` less `reference`, as `estimate_parts` has it."""
    if (found := estimate_parts(scores, reference, share)) is None:
        return None
    mean, parts = found
    if not any(part.variance for part in parts):
        return Difference(mean, 0.0, float(mean == 0))
    return Difference(mean, add_intervals(parts, SIGNIFICANCE_LEVEL), find_level(parts, abs(mean)))


def estimate_equivalence(scores: Scores, reference: Scores, margin: float, share: bool = False) -> float | None:
    """Return the p-value of a difference of `margin` or more, in either direction; None with too few seeds.

    It is the larger p-value of two one-sided tests. Below 0.05 the groups are equal within the margin.

    Reference: Schuirmann. A Comparison of the Two One-Sided Tests Procedure and the Power Approach. J. Pharmacokinetics
        and Biopharmaceutics 15, 1987.
    """
    if (found := estimate_parts(scores, reference, share)) is None:
        return None
    mean, parts = found
    if not any(part.variance for part in parts):
        return float(abs(mean) >= margin)
    tail = find_level(parts, abs(abs(mean) - margin)) / 2
    return tail if abs(mean) < margin else 1 - tail


def find_differences(groups: Sequence[Scores], first: int, share: bool = False) -> dict[int, tuple[Difference, float]]:
    """Find the difference of every other group to group `first`, and its p-value, Holm-corrected over all of them.

    A group that has too few seeds is left out, but still counts in the correction of the others.
    """
    others = [i for i in range(len(groups)) if i != first]
    found = {i: estimate_difference(groups[i], groups[first], share) for i in others}
    corrected = correct_by_holm([1.0 if (one := found[i]) is None else one.p for i in others])
    return {i: (one, p) for i, p in zip(others, corrected, strict=True) if (one := found[i]) is not None}


def mark_groups(groups: Sequence[Scores], baseline: int | None, sign: int) -> list[str]:
    """Return a mark for each group: `best`, `better`, `worse`, `baseline` or an empty string.

    With a baseline, each finding is marked. Without one, the same scores pick the best group and test it. So there is a
    single claim, that the best group beats all others, and every comparison must support it.

    Args:
        groups: scores [seeds, tasks] of each group on the same tasks.
        baseline: the number of the group that the others are compared with; None for none.
        sign: 1 if higher is better, else -1.
    """
    first = baseline if baseline is not None else max(range(len(groups)), key=lambda i: sign * groups[i].mean())
    return mark_found(groups, first, baseline is not None, sign, find_differences(groups, first))


def mark_found(
    groups: Sequence[Scores], first: int, given: bool, sign: int, found: Mapping[int, tuple[Difference, float]]
) -> list[str]:
    """Return the marks of `mark_groups` by the differences `found` to group `first`, a `given` baseline or the best."""
    marks = ["" for _ in groups]
    findings = {i for i, (_, p) in found.items() if p < SIGNIFICANCE_LEVEL}
    if given:
        marks[first] = "baseline"
        for i in findings:
            marks[i] = "better" if sign * found[i][0].mean > 0 else "worse"
    elif len(groups) > 1 and len(findings) == len(groups) - 1:
        marks[first] = "best"
    return marks
