"""Compare groups of finished runs task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from metarun.core.errors import ConfigError
from metarun.core.scores import Estimate, choose_score, estimate, find_direction
from metarun.core.words import is_percent
from metarun.report.confounds import note_confounds
from metarun.report.groups import (
    COMPARABLE_FIELDS,
    Group,
    check_group,
    check_keys,
    find_distinguishing,
    find_group,
    form_groups,
    name_group,
    select_scored,
    split_comparable,
)
from metarun.report.planned import Pair, Plan, check_plan, compare_pairs
from metarun.report.runs import Run
from metarun.report.stats import MIN_SEEDS, Difference, compare_paired, correct_by_holm, estimate_seed_interval
from metarun.report.two_levels import SIGNIFICANCE_LEVEL, find_differences, mark_found


@dataclass(frozen=True)
class Row:
    """One group's line of the table.

    Attributes:
        over_tasks: mean and interval of the scores [tasks], each averaged over seeds.
        over_seeds: half-width of the interval over per-seed means; None with fewer seeds than MIN_SEEDS.
        difference: difference to the reference, paired over tasks; None for the reference itself.
        p: the difference's p-value over tasks at these seeds, after Holm's correction over the table.
        p_with_seeds: the same over seeds and tasks, see two_levels.py; None with too few seeds.
        mark: `best`, `better`, `worse`, `baseline` or nothing; by `p_with_seeds`.
        in_interval: whether the paper's value lies within the wider of our two intervals; None if there is no value.
    """

    group: Group
    over_tasks: Estimate
    over_seeds: float | None
    difference: Difference | None
    p: float | None
    p_with_seeds: float | None
    mark: str
    in_interval: bool | None


@dataclass(frozen=True)
class Comparison:
    """One table, of groups that may be compared.

    Attributes:
        metric: the score.
        shared: the values of COMPARABLE_FIELDS, which are the same for all these runs.
        apart: the fields of these that separate this table from the others.
        keys: settings by which the groups differ.
        over: settings that are averaged over.
        rows: best first.
        baseline: the name of the group that the others are compared with; None if there is none.
        given: whether the user chose the baseline; else it is the best group.
        notes: remarks for the reader.
        plan: what was asked of pairs of groups; None if nothing was.
        pairs: the answers.
    """

    metric: str
    shared: Mapping[str, Any]
    apart: tuple[str, ...]
    keys: tuple[str, ...]
    over: tuple[str, ...]
    rows: tuple[Row, ...]
    baseline: str | None
    given: bool
    notes: tuple[str, ...]
    plan: Plan | None = None
    pairs: tuple[Pair, ...] = ()


def compare(
    runs: Sequence[Run],
    by: Sequence[str] | None,
    over: Sequence[str],
    metric: str | None,
    baseline: Mapping[str, str] | None,
    better: Literal["higher", "lower"] | None = None,
    plan: Plan | None = None,
) -> tuple[list[Comparison], list[str]]:
    """Compare the runs of each set that was tested in the same way.

    Args:
        runs: finished runs.
        by: keys of the groups; None takes the settings that differ within a set.
        over: keys to average over, such as seed.
        metric: a score of results.json; None takes the score by which the runs of a table are judged.
        baseline: settings of the group that the others are compared with; None takes the best group.
        better: whether a higher or a lower metric is better; None takes the direction that the learner declares or
            that is well known.
        plan: what is asked of pairs of groups besides, in units in which people read the score.
    Returns: a comparison for each set, and notes on runs left out.
    Raises: ConfigError for a metric, key, baseline or pair that the runs do not have, or a metric without a direction.
    """
    for flag, keys in (("--by", by or ()), ("--over", over), ("--baseline", baseline or {})):
        check_keys(runs, keys, flag)
    if both := sorted(set(by or ()) & set(over)):
        raise ConfigError(f"{', '.join(both)} is in --by and in --over; a table is either split by it or averages it")
    scored, left_out = select_scored(runs, metric)
    sets = split_comparable(scored)
    apart = tuple(field for field, *values in zip(COMPARABLE_FIELDS, *sets, strict=True) if len(set(values)) > 1)
    tables = []
    for members in sets.values():
        keys = tuple(by) if by is not None else find_distinguishing(members, over)
        score, sign = _choose_score(members, metric, better)
        groups, notes = form_groups(members, keys, over, score)
        tables.append(Table(score, sign, keys, groups, [*notes, *note_confounds(groups, keys, over)]))
    known = [(table.groups, table.keys) for table in tables]
    if plan:
        check_plan(plan, known)
    if baseline:
        check_group(baseline, known, "--baseline")
    found = []
    for values, table in zip(sets, tables, strict=True):
        shared = dict(zip(COMPARABLE_FIELDS, values, strict=True))
        found.append(_compare_groups(table, shared, apart, tuple(over), baseline, plan))
    return found, left_out


@dataclass(frozen=True)
class Table:
    """The groups of one comparison, before they are compared; `sign` is 1 if a higher score is better, else -1."""

    score: str
    sign: int
    keys: tuple[str, ...]
    groups: list[Group]
    notes: list[str]


def _choose_score(runs: Sequence[Run], metric: str | None, better: str | None) -> tuple[str, int]:
    """Return the score of a table, and 1 if a higher one is better, else -1."""
    directions = dict(pair for run in runs for pair in run.directions.items())
    score = metric or choose_score(set.intersection(*(set(run.results["test"]) for run in runs)), directions)
    upwards = better or find_direction(score, directions)
    if upwards is None:
        raise ConfigError(f"it is not known whether a higher {score} is better: add --higher or --lower")
    return score, 1 if upwards == "higher" else -1


def _compare_groups(
    table: Table,
    shared: Mapping[str, Any],
    apart: tuple[str, ...],
    over: tuple[str, ...],
    baseline: Mapping[str, str] | None,
    plan: Plan | None,
) -> Comparison:
    groups, keys, notes = table.groups, table.keys, list(table.notes)
    if len(groups) > 1 and any(len(group.runs) < MIN_SEEDS for group in groups):
        notes.append(
            f"a difference is marked only if both groups have {MIN_SEEDS} runs or more, which show how far seeds "
            f"spread, and if its corrected p over seeds and tasks is below {SIGNIFICANCE_LEVEL}"
        )
    chosen = find_group(groups, keys, baseline) if baseline else None
    rows = rank_groups(groups, table.score, chosen, baseline is not None, table.sign)
    reference = next((row.group for row in rows if row.difference is None), None)
    if baseline and chosen is None:
        reference, notes = None, [*notes, "the baseline was not run here: nothing is compared"]
    against = name_group(keys, reference.values) if reference else None
    number = next((i for i, group in enumerate(groups) if group is reference), None)
    plan = plan and plan.scale(table.score)
    pairs = compare_pairs(groups, keys, plan, number, table.sign, is_percent(table.score)) if plan else ()
    return Comparison(
        table.score, shared, apart, keys, over, tuple(rows), against, baseline is not None, tuple(notes), plan, pairs
    )


def rank_groups(groups: Sequence[Group], metric: str, baseline: int | None, given: bool, sign: int) -> list[Row]:
    """Return rows, best first, with their differences to group number `baseline`, or to the best if none is `given`.

    `sign` is 1 if higher is better, else -1.
    """
    means = [group.scores.mean(0) for group in groups]  # over seeds: [tasks]
    order = sorted(range(len(groups)), key=lambda i: -sign * float(means[i].mean()))
    first = baseline if given else order[0]
    others = [i for i in order if i != first] if first is not None else []
    share = is_percent(metric)
    differences = {i: compare_paired(means[i], means[first], share) for i in others if first is not None}
    corrected = dict(zip(others, correct_by_holm([differences[i].p for i in others]), strict=True))
    scores = [group.scores for group in groups]
    found = {} if first is None else find_differences(scores, first, share)
    marks = [""] * len(groups) if first is None else mark_found(scores, first, given, sign, found)
    rows = []
    for i in order:
        over_tasks = estimate(means[i], share)
        over_seeds = estimate_seed_interval(groups[i].scores.mean(1))
        paper = _check_paper(groups[i], metric, over_tasks, over_seeds)
        difference, p, p_with_seeds = differences.get(i), corrected.get(i), found[i][1] if i in found else None
        rows.append(Row(groups[i], over_tasks, over_seeds, difference, p, p_with_seeds, marks[i], paper))
    return rows


def _check_paper(group: Group, metric: str, over_tasks: Estimate, over_seeds: float | None) -> bool | None:
    paper = group.find_paper()
    if not paper or metric != group.runs[0].score_name:
        return None
    return abs(float(paper["value"]) - over_tasks.mean) <= max(over_tasks.ci95, over_seeds or 0.0)
