"""The table of planned comparisons, for people."""

from __future__ import annotations

from metarun.core.words import format_p, is_percent
from metarun.report.compare import Comparison
from metarun.report.planned import Pair
from metarun.report.power import MOST_SEEDS, POWER
from metarun.report.stats import format_difference
from metarun.report.two_levels import SIGNIFICANCE_LEVEL


def make_pair_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Make the heads and lines of the table; no lines if there are no pairs."""
    plan = comparison.plan
    if plan is None or not comparison.pairs:
        return [], []
    metric, by_seeds = comparison.metric, any(pair.with_seeds is not None for pair in comparison.pairs)
    heads = ["pair", "difference", "p", *(["seeds too", "p, seeds too"] if by_seeds else []), "won"]
    heads += ["seeds won"] if by_seeds else []
    heads += [f"equal within {_format_size(metric, plan.margin)}"] if plan.margin is not None else []
    heads += [f"seeds for {_format_size(metric, plan.effect)}"] if plan.effect is not None else []
    lines = []
    for pair in comparison.pairs:
        line = [" - ".join(pair.names), format_difference(metric, pair.over_tasks), format_p(pair.p)]
        if by_seeds:
            line += [format_difference(metric, pair.with_seeds), format_p(pair.p_with_seeds)]
        line += [f"{100 * pair.won:.0f} %"]
        if by_seeds:
            line += ["" if pair.seeds_won is None else f"{100 * pair.seeds_won:.0f} %"]
        if plan.margin is not None:
            line += [_format_equality(pair)]
        if plan.effect is not None:
            line += [_format_seeds(comparison, pair)]
        lines.append(line)
    return heads, lines


def make_pair_caption(comparison: Comparison) -> list[str]:
    plan, n = comparison.plan, len(comparison.pairs)
    if plan is None or not n:
        return []
    said = [
        "difference: paired over the test tasks at these seeds, with its 95 % interval; p: paired t-test, "
        f"Holm-corrected over {n} pair{'s' * (n > 1)}"
    ]
    if any(pair.with_seeds is not None for pair in comparison.pairs):
        said.append(
            "seeds too: the squares of the 95 % intervals over seeds of each and over tasks added up; p corrected alike"
        )
    said.append("won: share of the test tasks on which the first is better, in means over seeds")
    if any(pair.seeds_won is not None for pair in comparison.pairs):
        said.append("seeds won: share of the pairs of seeds, one of each, in which the first has the better mean")
    if plan.margin is not None:
        said.append(
            "equal within: two one-sided t-tests over seeds and tasks; yes if the p in brackets, Holm-corrected, is "
            f"below {SIGNIFICANCE_LEVEL}; a `no` does not prove a difference"
        )
    if plan.effect is not None:
        said.append(
            f"seeds for: seeds of each group that find such a difference in {100 * POWER:.0f} of 100 repetitions, by "
            "one test, if seeds and tasks spread as they do here"
        )
    return said


def _format_size(metric: str, size: float) -> str:
    return f"{100 * size if is_percent(metric) else size:g}"


def _format_equality(pair: Pair) -> str:
    if pair.p_equal is None:
        return "too few seeds"
    return f"{'yes' if pair.p_equal < SIGNIFICANCE_LEVEL else 'no'} ({format_p(pair.p_equal)})"


def _format_seeds(comparison: Comparison, pair: Pair) -> str:
    if pair.tasks is None:
        return "too few seeds"
    if pair.seeds is not None:
        return str(pair.seeds)
    n_tasks = comparison.rows[0].over_tasks.n_tasks
    return f"more than {n_tasks} tasks" if pair.tasks > n_tasks else f"over {MOST_SEEDS}"
