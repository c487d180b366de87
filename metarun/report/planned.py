"""Comparisons of two groups that were planned: corrected among themselves, whatever else is in the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metarun.core.errors import ConfigError
from metarun.core.words import is_percent
from metarun.report.groups import Group, check_group, find_group, name_group
from metarun.report.power import count_seeds, count_tasks
from metarun.report.stats import Difference, compare_paired, correct_by_holm
from metarun.report.two_levels import Scores, estimate_difference, estimate_equivalence

Settings = Mapping[str, str]
"""Settings that pick one group, as they were typed."""


@dataclass(frozen=True)
class Plan:
    """What is asked of pairs of groups.

    Attributes:
        pairs: the two groups of each; empty for every group against the baseline.
        margin: differences below it do not matter, > 0; None to ask for no equality.
        effect: a difference, > 0, for which seeds are counted; None to count none.
    """

    pairs: Sequence[tuple[Settings, Settings]]
    margin: float | None = None
    effect: float | None = None

    def scale(self, score: str) -> Plan:
        """Turn margin and effect from units in which people read the score into those of the files."""
        unit = 0.01 if is_percent(score) else 1.0
        sizes = (None if size is None else size * unit for size in (self.margin, self.effect))
        return Plan(self.pairs, *sizes)


@dataclass(frozen=True)
class Pair:
    """One planned comparison. The p-values are Holm's over all pairs of the table.

    Attributes:
        names: those of the two groups; differences are of the first less the second.
        over_tasks: the difference paired over tasks, at these seeds.
        with_seeds: the same with the variance of seeds; None with too few seeds, as all that follows.
        won: share of the test tasks on which the first is better, in means over seeds; equal ones count half.
        seeds_won: share of pairs of seeds, one of each group, in which the first has the better mean, counted alike;
            None with too few seeds.
        p_equal: the p-value of a difference of the plan's margin or more.
        seeds: seeds that would show the plan's effect; None if more than are counted.
        tasks: test tasks below which no number of seeds shows it.
    """

    names: tuple[str, str]
    over_tasks: Difference
    p: float
    with_seeds: Difference | None
    p_with_seeds: float | None
    won: float
    seeds_won: float | None
    p_equal: float | None
    seeds: int | None
    tasks: int | None


def compare_pairs(
    groups: Sequence[Group], keys: Sequence[str], plan: Plan, reference: int | None, sign: int, share: bool
) -> tuple[Pair, ...]:
    """Compare the pairs of `plan` that are among `groups`, or every group with group number `reference`.

    `sign` is 1 if higher is better, else -1; `share` is as of `estimate`.

    Raises: ConfigError if settings of the plan pick several groups.
    """
    if plan.pairs:
        found = [tuple(find_group(groups, keys, wanted, "--pair") for wanted in pair) for pair in plan.pairs]
        numbers = [(a, b) for a, b in found if a is not None and b is not None]
    else:
        numbers = [(i, reference) for i in range(len(groups)) if reference is not None and i != reference]
    scores = [(groups[a].scores, groups[b].scores) for a, b in numbers]
    over_tasks = [compare_paired(one.mean(0), other.mean(0), share) for one, other in scores]
    with_seeds = [estimate_difference(one, other, share) for one, other in scores]
    p = correct_by_holm([difference.p for difference in over_tasks])
    p_with_seeds = correct_by_holm([1.0 if difference is None else difference.p for difference in with_seeds])
    equal = [None if plan.margin is None else estimate_equivalence(*pair, plan.margin, share) for pair in scores]
    p_equal = correct_by_holm([1.0 if one is None else one for one in equal])
    pairs = []
    for i, (a, b) in enumerate(numbers):
        gain = sign * (scores[i][0].mean(0) - scores[i][1].mean(0))  # [T]
        counted = plan.effect is not None and with_seeds[i] is not None
        pairs.append(
            Pair(
                (groups[a].short_name, groups[b].short_name),
                over_tasks[i],
                p[i],
                with_seeds[i],
                None if with_seeds[i] is None else p_with_seeds[i],
                _share_above_zero(gain),
                None if with_seeds[i] is None else _share_above_zero(sign * _differ_by_seeds(*scores[i])),
                None if equal[i] is None else p_equal[i],
                count_seeds(*scores[i], plan.effect, share) if counted else None,  # type: ignore[arg-type]
                count_tasks(*scores[i], plan.effect, share) if counted else None,  # type: ignore[arg-type]
            )
        )
    return tuple(pairs)


def _share_above_zero(gains: Scores) -> float:
    """Return the share of gains above 0; those of 0 count half."""
    return float(np.mean((gains > 0) + 0.5 * (gains == 0)))


def _differ_by_seeds(scores: Scores, reference: Scores) -> Scores:
    """Return the differences [S, R] of the means of every seed of one group, [S, T], and of the other, [R, T].

    The share of them above 0 is the probability of improvement.
    Reference: Agarwal, Schwarzer, Castro, Courville, Bellemare. Deep Reinforcement Learning at the Edge of the
        Statistical Precipice. NeurIPS 2021. arXiv:2108.13264, section 4.3.
    """
    differences: Scores = scores.mean(1)[:, None] - reference.mean(1)
    return differences


def check_plan(plan: Plan, tables: Sequence[tuple[Sequence[Group], Sequence[str]]]) -> None:
    """Raise ConfigError if settings of the plan pick no group of any table: `tables` have their groups and keys."""
    for pair in plan.pairs:
        for wanted in pair:
            check_group(wanted, tables, "--pair")
        if not any(
            all(find_group(groups, keys, wanted, "--pair") is not None for wanted in pair) for groups, keys in tables
        ):
            both = " ".join(name_group(list(wanted), list(wanted.values())) for wanted in pair)
            raise ConfigError(f"--pair {both}: the two groups are in no table together, so they may not be compared")
