"""A comparison on the screen, and as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from metarun.core.words import format_duration, format_value, is_percent, name_task
from metarun.report.compare import Comparison, Row
from metarun.report.groups import COMPARABLE_FIELDS
from metarun.report.narrow import choose_columns
from metarun.report.two_levels import SIGNIFICANCE_LEVEL

LATEX_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": "$<$", ">": "$>$",
}  # fmt: skip


def make_tables(comparisons: Sequence[Comparison], width: int) -> list[Table]:
    """Make a table for each comparison, with the winner, if there is one, in bold.

    On a screen whose `width` in letters is too small some columns are left out, which the caption says.
    """
    tables = []
    for nth, comparison in enumerate(comparisons):
        heads, lines = make_cells(comparison)
        kept = choose_columns(heads, lines, width)
        missing = [head for place, head in enumerate(heads) if place not in kept]
        caption = make_caption(comparison) + ([f"too narrow for: {', '.join(missing)}"] if missing else [])
        table = Table(
            title=Text(make_heading(comparisons, nth), style="bold"),
            caption=Text("\n".join(caption), style="dim"),
            box=box.SIMPLE_HEAD,
            title_justify="left",
            caption_justify="left",
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for place in kept:
            table.add_column(heads[place], justify="left" if place < len(comparison.keys) else "right", overflow="fold")
        for row, line in zip(comparison.rows, lines, strict=True):
            shown = [Text(line[place]) for place in kept]
            table.add_row(*shown, style="bold" if row.mark in ("best", "better") else "")
        tables.append(table)
    return tables


def format_csv(comparisons: Sequence[Comparison]) -> str:
    """Format one line for each group of all tables, with all digits and accuracy as a fraction."""
    lines = [
        _make_csv_line(comparison, row, nth + 1)
        for nth, comparison in enumerate(comparisons)
        for row in comparison.rows
    ]
    heads = dict.fromkeys(name for line in lines for name in line)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(heads), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def format_markdown(comparisons: Sequence[Comparison]) -> str:
    """Format a heading, a table and its caption for each comparison."""
    parts = []
    for nth, comparison in enumerate(comparisons):
        heads, lines = make_cells(comparison)
        rule = ["---" if place < len(comparison.keys) else "---:" for place in range(len(heads))]
        rows = [[cell.replace("|", r"\|") for cell in line] for line in (heads, rule, *lines)]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        parts.append(f"### {make_heading(comparisons, nth)}\n\n{table}\n\n{'. '.join(make_caption(comparison))}.\n")
    return "\n".join(parts)


def format_latex(comparisons: Sequence[Comparison]) -> str:
    """Format a table environment for each comparison, with the rules of the package booktabs."""
    parts = ["% \\usepackage{booktabs}\n"]
    for nth, comparison in enumerate(comparisons):
        heads, lines = make_cells(comparison)
        words = len(comparison.keys)
        head, *body = [" & ".join(map(_escape_latex, line)) + r" \\" for line in (heads, *lines)]
        below = _escape_latex(". ".join([make_heading(comparisons, nth), *make_caption(comparison)]) + ".")
        columns = "l" * words + "r" * (len(heads) - words)
        above = [r"\begin{table}", r"\centering", rf"\caption{{{below}}}", rf"\begin{{tabular}}{{{columns}}}"]
        rows = [r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
        parts.append("\n".join([*above, *rows, r"\end{tabular}", r"\end{table}", ""]))
    return "\n".join(parts)


def make_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Make the heads and lines of a table for people, without columns that would be empty."""
    metric, rows = comparison.metric, comparison.rows
    runs = "seeds" if comparison.over == ("seed",) else "runs"
    heads = [
        *shorten_keys(comparison.keys),
        f"{metric} %" if is_percent(metric) else metric,
        "over tasks",
        f"over {runs}",
    ]
    heads += [runs]
    compared, by_seeds = any(row.difference for row in rows), any(row.p_with_seeds is not None for row in rows)
    papers = any(row.in_interval is not None for row in rows)
    heads += ["difference", "p", *([f"p, {runs} too"] if by_seeds else []), ""] if compared else []
    heads += ["step", "time", "tasks/s"] + (["paper", "inside"] if papers else [])
    lines = []
    for row in rows:
        group, speed, step = row.group, row.group.average("tasks_per_second"), row.group.average("best_step")
        line = [format_setting(value) for value in group.values]
        line += [format_value(metric, row.over_tasks.mean), f"± {format_value(metric, row.over_tasks.ci95)}"]
        line += ["" if row.over_seeds is None else f"± {format_value(metric, row.over_seeds)}"]
        line += [str(len(group.runs))]
        if compared:
            line += [
                _format_difference(metric, row),
                _format_p(row.p),
                *([_format_p(row.p_with_seeds)] if by_seeds else []),
                row.mark,
            ]
        seconds = group.average("seconds", "total")
        line += ["" if step is None else f"{step:.0f}", "" if seconds is None else format_duration(seconds)]
        line += ["" if speed is None else f"{speed:.0f}" if speed >= 10 else f"{speed:.1f}"]
        if papers:
            line += [_format_paper(row), {None: "", True: "yes", False: "no"}[row.in_interval]]
        lines.append(line)
    return heads, lines


def make_heading(comparisons: Sequence[Comparison], nth: int) -> str:
    comparison = comparisons[nth]
    has = comparison.shared
    queries = f"{has['n_query']} queries" + (" a class" if has["n_way"] else "")
    tasks = [name_task(has["n_way"], has["k_shot"]), queries] if has["k_shot"] is not None else []
    title = ", ".join([has["data"], *tasks, f"bn={has['bn']}"])
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
    said.append("step: the best by validation" + ("; step, time and speed are means over the runs" if several else ""))
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
                "p, seeds too: variances of seeds and of tasks added up (Welch, Satterthwaite), Holm-corrected; "
                f"{'better, worse' if comparison.given else 'best'}: below {SIGNIFICANCE_LEVEL}"
            )
            if not (comparison.given or any(row.mark for row in comparison.rows)):
                said.append("no winner: the best does not differ in this way from every other group")
    sources = {paper["source"] for row in comparison.rows if (paper := row.group.find_paper())}
    if sources:
        said.append(f"paper: {'; '.join(sorted(sources))}; inside: within the wider of our two intervals")
    return [*said, *comparison.notes]


def _make_csv_line(comparison: Comparison, row: Row, table: int) -> dict[str, Any]:
    group, paper = row.group, row.group.find_paper() or {}
    return {
        "table": table,
        **{field: comparison.shared[field] for field in COMPARABLE_FIELDS},
        **dict(zip(comparison.keys, group.values, strict=True)),
        "metric": comparison.metric,
        "mean": row.over_tasks.mean,
        "ci95_tasks": row.over_tasks.ci95,
        "ci95_seeds": row.over_seeds,
        "n_seeds": len(group.runs),
        "n_tasks": row.over_tasks.n_tasks,
        "baseline": comparison.baseline,
        "difference": row.difference and row.difference.mean,
        "difference_ci95": row.difference and row.difference.ci95,
        "p_holm": row.p,
        "p_holm_with_seeds": row.p_with_seeds,
        "mark": row.mark,
        "best_step": group.average("best_step"),
        "seconds": group.average("seconds", "total"),
        "tasks_per_second": group.average("tasks_per_second"),
        **{f"paper_{name}": paper.get(name) for name in ("value", "ci95", "source")},
        "paper_inside": row.in_interval,
        "runs": " ".join(str(run.folder) for run in group.runs),
    }


def shorten_keys(keys: Sequence[str]) -> list[str]:
    """Shorten each key to its last part, unless another key ends with the same part."""
    tails = [key.rsplit(".", 1)[-1] for key in keys]
    return [tail if tails.count(tail) == 1 else key for key, tail in zip(keys, tails, strict=True)]


def format_setting(value: Any) -> str:
    return "-" if value is None else str(value)


def _format_difference(metric: str, row: Row) -> str:
    if row.difference is None:
        return ""
    sign = "-" if row.difference.mean < 0 else "+"
    return f"{sign}{format_value(metric, abs(row.difference.mean))} ± {format_value(metric, row.difference.ci95)}"


def _format_p(p: float | None) -> str:
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _format_paper(row: Row) -> str:
    paper = row.group.find_paper()
    if not paper:
        return ""
    known = [paper["value"], *([paper["ci95"]] if paper.get("ci95") is not None else [])]
    return " ± ".join(format_value(row.group.runs[0].score_name, value) for value in known)


def _escape_latex(text: str) -> str:
    return "".join(LATEX_ESCAPES.get(letter, letter) for letter in text.replace("\n", "; "))
