"""Test whether groups of runs differ by more than other seeds and other test tasks would change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from metarun.report.stats import MIN_SEEDS, Difference, correct_by_holm

SIGNIFICANCE_LEVEL = 0.05
"""A difference with a corrected p-value below this is a finding."""

Scores = NDArray[np.float64]


def measure_spread(scores: Scores, reference: Scores) -> tuple[list[tuple[float, float]], tuple[float, float]]:
    """Measure how uncertain the difference of two groups' means is: `scores` [S, T] and `reference` [R, T].

    Returns: the variance of one seed's mean and its degrees of freedom, for each group; and the same of one task's
        difference, in which the groups are paired.
    """
    of_seeds = [(float(group.mean(1).var(ddof=1)), len(group) - 1.0) for group in (scores, reference)]
    paired = scores.mean(0) - reference.mean(0)  # [T]
    return of_seeds, (float(paired.var(ddof=1)), len(paired) - 1.0)


def add_variances(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the standard error of a sum of independent parts, and its degrees of freedom.

    Args:
        parts: the variance of each part, and its degrees of freedom.
    Reference: Satterthwaite. An Approximate Distribution of Estimates of Variance Components. Biometrics Bulletin 2,
        1946.
    """
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return 0.0, float("inf")
    return float(np.sqrt(variance)), variance**2 / sum(part**2 / degrees for part, degrees in parts)


def estimate_error(scores: Scores, reference: Scores) -> tuple[float, float, float] | None:
    """Return the difference of two groups' means, its standard error and its degrees of freedom.

    The variance is a sum: the variance of the means of seeds, which are independent in the groups (Welch), and that of
    the tasks, on which the groups are paired. Interactions of seeds and tasks count in both, so the error is too large
    rather than too small. None if a group has fewer seeds than MIN_SEEDS.

    Args:
        scores: a group's scores [S, T].
        reference: those of the other group [R, T] on the same T test tasks.
    """
    if min(len(scores), len(reference)) < MIN_SEEDS:
        return None
    of_seeds, (of_tasks, freedom) = measure_spread(scores, reference)
    sizes = len(scores), len(reference)
    parts = [(variance / n, degrees) for (variance, degrees), n in zip(of_seeds, sizes, strict=True)]
    mean = float((scores.mean(0) - reference.mean(0)).mean())
    return mean, *add_variances([*parts, (of_tasks / scores.shape[1], freedom)])


def estimate_difference(scores: Scores, reference: Scores) -> Difference | None:
    """Estimate the difference of two groups' means, `scores` less `reference`, as `estimate_error` has it."""
    if (found := estimate_error(scores, reference)) is None:
        return None
    from scipy import special  # takes half a second to import

    mean, error, freedom = found
    if error == 0:
        return Difference(mean, 0.0, float(mean == 0))
    half = float(special.stdtrit(freedom, 1 - SIGNIFICANCE_LEVEL / 2)) * error
    return Difference(mean, half, float(2 * special.stdtr(freedom, -abs(mean) / error)))


def estimate_equivalence(scores: Scores, reference: Scores, margin: float) -> float | None:
    """Return the p-value of a difference of `margin` or more, in either direction; None with too few seeds.

    It is the larger p-value of two one-sided tests. Below 0.05 the groups are equal within the margin.

    Reference: Schuirmann. A Comparison of the Two One-Sided Tests Procedure and the Power Approach. J. Pharmacokinetics
        and Biopharmaceutics 15, 1987.
    """
    if (found := estimate_error(scores, reference)) is None:
        return None
    from scipy import special

    mean, error, freedom = found
    if error == 0:
        return float(abs(mean) >= margin)
    return float(special.stdtr(freedom, (abs(mean) - margin) / error))


def find_differences(groups: Sequence[Scores], first: int) -> dict[int, tuple[Difference, float]]:
    """Find the difference of every other group to group `first`, and its p-value, Holm-corrected over all of them.

    A group that has too few seeds is left out, but still counts in the correction of the others.
    """
    others = [i for i in range(len(groups)) if i != first]
    found = {i: estimate_difference(groups[i], groups[first]) for i in others}
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
