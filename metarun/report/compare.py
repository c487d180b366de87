"""Compare groups of finished runs task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from metarun.core.errors import ConfigError, suggest
from metarun.core.scores import Estimate, choose_score, estimate, find_direction
from metarun.report.groups import (
    APART,
    Group,
    check_keys,
    comparable_sets,
    differing,
    group_of,
    groups_of,
    label,
    notes_on,
    with_scores,
)
from metarun.report.runs import Run
from metarun.report.stats import Difference, holm, paired, seed_interval
from metarun.report.two_levels import FEWEST_SEEDS, LEVEL, find_differences, mark_groups


@dataclass(frozen=True)
class Row:
    """One group's line of the table.

    Attributes:
        over_tasks: mean and interval of the scores [tasks] that are averaged over seeds.
        over_seeds: half-width of the interval over per-seed means; None with one seed.
        difference: to the reference, paired over tasks; None for the reference itself.
        p: the difference's p-value over tasks at these seeds, after Holm's correction over the table.
        p_with_seeds: the same over seeds and tasks, see two_levels.py; None with too few seeds to tell.
        mark: `best`, `better`, `worse`, `baseline` or nothing; by `p_with_seeds`.
        in_interval: whether the paper's value lies within the wider of our two intervals; None without one.
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
    """One table: groups that may be compared.

    Attributes:
        metric: the score.
        shared: the fields of APART, which these runs share.
        apart: those of them by which they are kept from the other tables.
        keys: what tells the groups apart.
        over: what is averaged over.
        rows: best first.
        baseline: the group the others are held against, in words; None where there is none to compare.
        given: whether the baseline was asked for; else it is the best group.
        notes: what a reader must know.
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


def compare(
    runs: Sequence[Run],
    by: Sequence[str] | None,
    over: Sequence[str],
    metric: str | None,
    baseline: Mapping[str, str] | None,
    better: Literal["higher", "lower"] | None = None,
) -> tuple[list[Comparison], list[str]]:
    """One comparison for each set of runs that were tested in the same way, and notes on runs left out.

    Args:
        runs: finished runs.
        by: keys of the groups; None takes what differs within a set.
        over: keys to average over, such as seed.
        metric: a score of results.json; None takes what the runs of a table are known by.
        baseline: settings of the group that the others are held against; None takes the best.
        better: which way the metric is better; None goes by what its learner said, or what is known.
    Raises: ConfigError for a metric, key or baseline that the runs do not have, or a metric without a direction.
    """
    for flag, keys in (("--by", by or ()), ("--over", over), ("--baseline", baseline or {})):
        check_keys(runs, keys, flag)
    if both := sorted(set(by or ()) & set(over)):
        raise ConfigError(f"{', '.join(both)} is in --by and in --over; a table is either split by it or averages it")
    scored, left_out = with_scores(runs, metric)
    sets = comparable_sets(scored)
    apart = tuple(field for field, *values in zip(APART, *sets, strict=True) if len(set(values)) > 1)
    found: list[Comparison] = []
    names: list[str] = []
    for values, members in sets.items():
        own = tuple(by) if by is not None else differing(members, over)
        directions = dict(pair for run in members for pair in run.directions.items())
        score = metric or choose_score(set.intersection(*(set(run.results["test"]) for run in members)), directions)
        upwards = better or find_direction(score, directions)
        if upwards is None:
            raise ConfigError(f"whether more {score} is better is not known: add --higher or --lower")
        groups, notes = groups_of(members, own, over, score)
        notes += notes_on(members, own, over)
        if len(groups) > 1 and any(len(group.runs) < FEWEST_SEEDS for group in groups):
            notes.append(
                f"a difference is marked from {FEWEST_SEEDS} runs a group on, which tell how far seeds spread, and "
                f"with a corrected p below {LEVEL} of seeds and tasks"
            )
        names += [label(own, group.values) for group in groups]
        chosen = group_of(groups, own, baseline) if baseline else None
        rows = rows_of(groups, score, chosen, baseline is not None, 1 if upwards == "higher" else -1)
        against = next((label(own, row.group.values) for row in rows if row.difference is None), None)
        if baseline and chosen is None:
            against, notes = None, [*notes, "the baseline was not run here: nothing is compared"]
        shared = dict(zip(APART, values, strict=True))
        found.append(
            Comparison(score, shared, apart, own, tuple(over), tuple(rows), against, baseline is not None, tuple(notes))
        )
    if baseline and all(comparison.baseline is None for comparison in found):
        asked = label(list(baseline), list(baseline.values()))
        raise ConfigError(f"--baseline {asked} is no group{suggest(asked, names)}; there is {'; '.join(names)}")
    return found, left_out


def rows_of(groups: Sequence[Group], metric: str, baseline: int | None, given: bool, sign: int) -> list[Row]:
    """Rows, best first, with their differences to group number `baseline`, or to the best where none is `given`.

    `sign` is 1 where higher is better, or -1.
    """
    means = [group.scores.mean(0) for group in groups]  # over seeds: [tasks]
    order = sorted(range(len(groups)), key=lambda i: -sign * float(means[i].mean()))
    first = baseline if given else order[0]
    others = [i for i in order if i != first] if first is not None else []
    differences = {i: paired(means[i], means[first]) for i in others if first is not None}
    corrected = dict(zip(others, holm([differences[i].p for i in others]), strict=True))
    scores = [group.scores for group in groups]
    marks = [""] * len(groups) if first is None else mark_groups(scores, first if given else None, sign)
    with_seeds = {} if first is None else {i: p for i, (_, p) in find_differences(scores, first).items()}
    rows = []
    for i in order:
        over_tasks, over_seeds = estimate(means[i]), seed_interval(groups[i].scores.mean(1))
        paper = _paper_inside(groups[i], metric, over_tasks, over_seeds)
        difference, p, p_with_seeds = differences.get(i), corrected.get(i), with_seeds.get(i)
        rows.append(Row(groups[i], over_tasks, over_seeds, difference, p, p_with_seeds, marks[i], paper))
    return rows


def _paper_inside(group: Group, metric: str, over_tasks: Estimate, over_seeds: float | None) -> bool | None:
    paper = group.paper()
    if not paper or metric != group.runs[0].score_name:
        return None
    return abs(float(paper["value"]) - over_tasks.mean) <= max(over_tasks.ci95, over_seeds or 0.0)
