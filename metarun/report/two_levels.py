"""Test whether groups of runs differ by more than other seeds and other test tasks would change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from metarun.report.stats import Difference, correct_by_holm

MIN_SEEDS = 3
"""Least seeds of a group for a test of a difference; fewer do not show how far seeds spread."""

SIGNIFICANCE_LEVEL = 0.05
"""A difference with a corrected p-value below this is a finding."""

Scores = NDArray[np.float64]


def estimate_difference(scores: Scores, reference: Scores) -> Difference | None:
    """Estimate the difference of two groups' means, `scores` [S, T] less `reference` [R, T], on the same T test tasks.

    Its variance is a sum: the variance of the means of seeds, which are independent in the groups (Welch), and that of
    the tasks, on which the groups are paired. Degrees of freedom are Satterthwaite's. Interactions of seeds and tasks
    count in both, so the interval is too wide rather than too narrow. None if a group has fewer seeds than MIN_SEEDS.

    Reference: Satterthwaite. An Approximate Distribution of Estimates of Variance Components. Biometrics Bulletin 2,
        1946.
    """
    if min(len(scores), len(reference)) < MIN_SEEDS:
        return None
    from scipy import special  # takes half a second to import

    of_seeds = [(group.mean(1).var(ddof=1) / len(group), len(group) - 1) for group in (scores, reference)]
    paired = scores.mean(0) - reference.mean(0)  # [T]
    of_tasks = (paired.var(ddof=1) / len(paired), len(paired) - 1)
    parts = [*of_seeds, of_tasks]
    mean, variance = float(paired.mean()), sum(part for part, _ in parts)
    if variance == 0:
        return Difference(mean, 0.0, float(mean == 0))
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    error = float(np.sqrt(variance))
    half = float(special.stdtrit(freedom, 1 - SIGNIFICANCE_LEVEL / 2)) * error
    return Difference(mean, half, float(2 * special.stdtr(freedom, -abs(mean) / error)))


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
