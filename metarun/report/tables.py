"""A comparison on the screen: its cells, its heading and its caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from metarun.core.scores import WILSON
from metarun.core.secrets import mask
from metarun.core.words import (
    ALONE,
    ANSWERS_MEAN,
    format_duration,
    format_p,
    format_value,
    is_percent,
    name_answers,
    name_queries,
    name_task,
)
from metarun.report.budget import count_inputs, count_steps
from metarun.report.compare import Comparison, Row
from metarun.report.groups import Group
from metarun.report.narrow import choose_columns
from metarun.report.pair_table import make_pair_caption, make_pair_cells
from metarun.report.stats import format_difference
from metarun.report.two_levels import SIGNIFICANCE_LEVEL


@dataclass(frozen=True)
class Sheet:
    """A table as people see it.

    Attributes:
        words: how many of the first columns are words; the others are numbers.
        bold: the numbers of lines that stand out.
    """

    title: str
    heads: list[str]
    lines: list[list[str]]
    words: int
    caption: list[str]
    bold: frozenset[int] = frozenset()


def make_sheets(comparisons: Sequence[Comparison]) -> list[Sheet]:
    """Make the table of each comparison, and one of its planned pairs if it has any."""
    sheets = []
    for nth, comparison in enumerate(comparisons):
        heads, lines = make_cells(comparison)
        title, marks = make_heading(comparisons, nth), [row.mark for row in comparison.rows]
        bold = frozenset(place for place, mark in enumerate(marks) if mark in ("best", "better"))
        sheets.append(Sheet(title, heads, lines, count_words(comparison), make_caption(comparison), bold))
        heads, lines = make_pair_cells(comparison)
        if lines:
            sheets.append(Sheet("planned comparisons", heads, lines, 1, make_pair_caption(comparison)))
    return sheets


def make_tables(comparisons: Sequence[Comparison], width: int) -> list[Table]:
    """Make the tables for a screen, with the winner, if there is one, in bold.

    On a screen whose `width` in letters is too small some columns are left out, which the caption says.
    """
    tables = []
    for sheet in make_sheets(comparisons):
        kept = choose_columns(sheet.heads, sheet.lines, width)
        missing = [head for place, head in enumerate(sheet.heads) if place not in kept]
        caption = sheet.caption + ([f"too narrow for: {', '.join(missing)}"] if missing else [])
        table = Table(
            title=Text(sheet.title, style="bold"),
            caption=Text("\n".join(caption), style="dim"),
            box=box.SIMPLE_HEAD,
            title_justify="left",
            caption_justify="left",
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for place in kept:
            table.add_column(sheet.heads[place], justify="left" if place < sheet.words else "right", overflow="fold")
        for place, line in enumerate(sheet.lines):
            table.add_row(*(Text(line[column]) for column in kept), style="bold" if place in sheet.bold else "")
        tables.append(table)
    return tables


def make_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Make the heads and lines of a table for people, without columns that would be empty."""
    metric, rows = comparison.metric, comparison.rows
    runs = "seeds" if comparison.over == ("seed",) else "runs"
    answers = find_answers(comparison)
    heads = [
        *shorten_keys(comparison.keys),
        *(["answers"] if answers else []),
        f"{metric} %" if is_percent(metric) else metric,
        "over tasks",
        f"over {runs}",
    ]
    heads += [runs]
    compared, by_seeds = any(row.difference for row in rows), any(row.p_with_seeds is not None for row in rows)
    papers = any(row.in_interval is not None for row in rows)
    heads += ["difference", "p", *([f"p, {runs} too"] if by_seeds else []), "verdict"] if compared else []
    budgets = [_format_budget(row) for row in rows]
    inputs = "images" if comparison.shared["n_way"] else "points"
    columns = [(head, [budget[place] for budget in budgets]) for place, head in enumerate((inputs, "gradient steps"))]
    columns = [(head, cells) for head, cells in columns if any(cells)]
    heads += ["step", "training", *(head for head, _ in columns)] + (["paper", "inside"] if papers else [])
    lines = []
    for place, row in enumerate(rows):
        group, step = row.group, row.group.average("best_step")
        line = [format_setting(value) for value in group.values] + answers[place : place + 1]
        line += [format_value(metric, row.over_tasks.mean), f"± {format_value(metric, row.over_tasks.ci95)}"]
        line += [_format_seeds(metric, row)]
        line += [str(len(group.runs))]
        if compared:
            line += [
                format_difference(metric, row.difference),
                format_p(row.p),
                *([format_p(row.p_with_seeds)] if by_seeds else []),
                row.mark,
            ]
        seconds = group.average("seconds", "train")
        line += ["" if step is None else f"{step:.0f}", "" if seconds is None else format_duration(seconds)]
        line += [cells[place] for _, cells in columns]
        if papers:
            line += [_format_paper(row), {None: "", True: "yes", False: "no"}[row.in_interval]]
        lines.append(line)
    return heads, lines


def find_answers(comparison: Comparison) -> list[str]:
    """Find how each group answers queries, see metarun/algos/base/learner.py; empty if all answer each alone."""
    found = [name_group_answers(row.group) for row in comparison.rows]
    return found if set(found) != {ALONE} else []


def name_group_answers(group: Group) -> str:
    return " or ".join(sorted({name_answers(run.results) for run in group.runs}))


def count_words(comparison: Comparison) -> int:
    """Count the first columns of a table that are words."""
    return len(comparison.keys) + bool(find_answers(comparison))


def make_heading(comparisons: Sequence[Comparison], nth: int) -> str:
    comparison = comparisons[nth]
    has = comparison.shared
    queries = name_queries(has["n_query"], has["n_way"], has["query"])
    tasks = [name_task(has["n_way"], has["k_shot"]), queries] if has["k_shot"] is not None else []
    title = ", ".join([f"{_name_algo(comparison)}{has['data']}", *tasks, f"bn={has['bn']}"])
    title += ", trained on train and val" if has["trainval"] else ""
    title += f", {comparison.rows[0].over_tasks.n_tasks} test tasks"
    if len(comparisons) > 1:
        apart = ", ".join(f"{field}={format_setting(has[field])[:16]}" for field in comparison.apart)
        title = f"table {nth + 1} of {len(comparisons)}: {title}\nnot to be compared with the others: {apart}"
    return title


def make_caption(comparison: Comparison) -> list[str]:
    several = any(len(row.group.runs) > 1 for row in comparison.rows)
    compared = [row for row in comparison.rows if row.difference]
    said = ["over tasks, over seeds: 95 % intervals, Student t over test tasks and over means of seeds"]
    if any(row.over_tasks.interval == WILSON for row in comparison.rows):
        said[0] += "; Wilson over test tasks where few of them have an error"
    if any(len(row.group.runs) == 2 for row in comparison.rows):
        said.append("two seeds have no interval: their two means are shown")
    words = "step: the best by validation; training: its time; images or points: all that it drew"
    words += "; gradient steps: outer ones + inner ones of all tasks"
    said.append(words + ("; means over the runs" if several else ""))
    if find_answers(comparison):
        said.append(ANSWERS_MEAN)
    if compared:
        which = "" if comparison.given else " (the best mean)"
        said.append(
            f"difference to {comparison.baseline}{which}, paired over the same test tasks, with its 95 % interval; "
            f"p: paired t-test, Holm-corrected over {len(compared)} comparison{'s' * (len(compared) > 1)}"
        )
        if several:
            said.append("the difference's interval is over tasks at these seeds; other seeds may differ by more")
        if any(row.p_with_seeds is not None for row in comparison.rows):
            said.append(
                "p, seeds too: squares of the intervals over seeds of each and over tasks added up, Holm-corrected; "
                f"{'better, worse' if comparison.given else 'best'}: below {SIGNIFICANCE_LEVEL}"
            )
            if not (comparison.given or any(row.mark for row in comparison.rows)):
                said.append("no winner: the best does not differ in this way from every other group")
    sources = {paper["source"] for row in comparison.rows if (paper := row.group.find_paper())}
    if sources:
        said.append(f"paper: {'; '.join(sorted(sources))}; inside: within the wider of our two intervals")
    return [*said, *comparison.notes]


def shorten_keys(keys: Sequence[str]) -> list[str]:
    """Shorten each key to its last part, unless another key ends with the same part."""
    tails = [key.rsplit(".", 1)[-1] for key in keys]
    return [tail if tails.count(tail) == 1 else key for key, tail in zip(keys, tails, strict=True)]


def format_setting(value: Any) -> str:
    return "-" if value is None else mask(str(value))


def _format_seeds(metric: str, row: Row) -> str:
    """Format the interval over seeds; with two seeds, their two means; with one, nothing."""
    if row.over_seeds is not None:
        return f"± {format_value(metric, row.over_seeds)}"
    means = row.group.scores.mean(1)
    return ", ".join(format_value(metric, mean) for mean in means) if len(means) > 1 else ""


def _name_algo(comparison: Comparison) -> str:
    """Name the algorithm where no column does, as `maml on `."""
    algos = {str(run.value("algo")) for row in comparison.rows for run in row.group.runs}
    return f"{algos.pop()} on " if len(algos) == 1 and "algo" not in comparison.keys else ""


def _format_budget(row: Row) -> tuple[str, str]:
    """Format the images or points that training drew, and its outer and inner steps; empty where a run lacks them."""
    inputs, steps = count_inputs(row.group), count_steps(row.group)
    if inputs is None or steps is None:
        return "", ""
    outer, inner = steps
    return f"{inputs:,.0f}", f"{outer:,.0f} + {inner:,.0f}" if inner else f"{outer:,.0f}"


def _format_paper(row: Row) -> str:
    paper = row.group.find_paper()
    if not paper:
        return ""
    known = [paper["value"], *([paper["ci95"]] if paper.get("ci95") is not None else [])]
    return " ± ".join(format_value(row.group.runs[0].score_name, value) for value in known)
