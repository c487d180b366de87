"""Comparisons as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from metarun.core.scores import estimate
from metarun.core.words import is_percent, make_cell
from metarun.report.budget import count_inputs, count_steps
from metarun.report.compare import Comparison, Row
from metarun.report.groups import COMPARABLE_FIELDS, Group
from metarun.report.tables import make_sheets, name_group_answers

LATEX_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": "$<$", ">": "$>$",
}  # fmt: skip


def format_csv(comparisons: Sequence[Comparison]) -> str:
    """Format one line for each group of all tables, with all digits and accuracy as a fraction."""
    lines = [
        _make_csv_line(comparison, row, nth + 1)
        for nth, comparison in enumerate(comparisons)
        for row in comparison.rows
    ]
    return _write_csv(lines)


def format_seed_csv(comparisons: Sequence[Comparison]) -> str:
    """Format one line for each run of all tables, with all digits and accuracy as a fraction."""
    lines = []
    for nth, comparison in enumerate(comparisons, 1):
        for row in comparison.rows:
            for run, scores in zip(row.group.runs, row.group.scores, strict=True):
                alone = Group(row.group.values, (run,), scores[None])
                found = estimate(scores, is_percent(comparison.metric))
                lines.append(
                    {
                        "table": nth,
                        **{field: comparison.shared[field] for field in COMPARABLE_FIELDS},
                        **dict(zip(comparison.keys, row.group.values, strict=True)),
                        **{key: run.value(key) for key in comparison.over},
                        "metric": comparison.metric,
                        "mean": found.mean,
                        "ci95_tasks": found.ci95,
                        "n_tasks": found.n_tasks,
                        "best_step": run.results.get("best_step"),
                        **_make_budget(alone),
                        "run": str(run.place),
                    }
                )
    return _write_csv(lines)


def format_pair_csv(comparisons: Sequence[Comparison]) -> str:
    """Format one line for each planned pair of all tables, with all digits."""
    lines = [
        {
            "table": nth + 1,
            "first": pair.names[0],
            "second": pair.names[1],
            "metric": comparison.metric,
            "difference": pair.over_tasks.mean,
            "ci95_tasks": pair.over_tasks.ci95,
            "p_holm": pair.p,
            "ci95_with_seeds": pair.with_seeds and pair.with_seeds.ci95,
            "p_holm_with_seeds": pair.p_with_seeds,
            "won": pair.won,
            "seeds_won": pair.seeds_won,
            "margin": comparison.plan and comparison.plan.margin,
            "p_equal_holm": pair.p_equal,
            "effect": comparison.plan and comparison.plan.effect,
            "seeds": pair.seeds,
            "least_tasks": pair.tasks,
        }
        for nth, comparison in enumerate(comparisons)
        for pair in comparison.pairs
    ]
    return _write_csv(lines)


def format_markdown(comparisons: Sequence[Comparison]) -> str:
    """Format a heading, a table and its caption for each table."""
    parts = []
    for sheet in make_sheets(comparisons):
        rule = ["---" if place < sheet.words else "---:" for place in range(len(sheet.heads))]
        rows = [[cell.replace("|", r"\|") for cell in line] for line in (sheet.heads, rule, *sheet.lines)]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        parts.append(f"### {sheet.title}\n\n{table}\n\n{'. '.join(sheet.caption)}.\n")
    return "\n".join(parts)


def format_latex(comparisons: Sequence[Comparison]) -> str:
    """Format a table environment for each table, with the rules of the package booktabs."""
    parts = ["% \\usepackage{booktabs}\n"]
    for sheet in make_sheets(comparisons):
        head, *body = [" & ".join(map(_escape_latex, line)) + r" \\" for line in (sheet.heads, *sheet.lines)]
        below = _escape_latex(". ".join([sheet.title, *sheet.caption]) + ".")
        columns = "l" * sheet.words + "r" * (len(sheet.heads) - sheet.words)
        above = [r"\begin{table}", r"\centering", rf"\caption{{{below}}}", rf"\begin{{tabular}}{{{columns}}}"]
        rows = [r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
        parts.append("\n".join([*above, *rows, r"\end{tabular}", r"\end{table}", ""]))
    return "\n".join(parts)


def _write_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    heads = dict.fromkeys(name for line in lines for name in line)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(heads), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: make_cell(value) for name, value in line.items()} for line in lines)
    return file.getvalue()


def _make_csv_line(comparison: Comparison, row: Row, table: int) -> dict[str, Any]:
    group, paper = row.group, row.group.find_paper() or {}
    return {
        "table": table,
        **{field: comparison.shared[field] for field in COMPARABLE_FIELDS},
        **dict(zip(comparison.keys, group.values, strict=True)),
        "answers": name_group_answers(group),
        "metric": comparison.metric,
        "mean": row.over_tasks.mean,
        "ci95_tasks": row.over_tasks.ci95,
        "ci95_seeds": row.over_seeds,
        "seed_means": " ".join(str(float(mean)) for mean in group.scores.mean(1)),
        "n_seeds": len(group.runs),
        "n_tasks": row.over_tasks.n_tasks,
        "baseline": comparison.baseline,
        "difference": row.difference and row.difference.mean,
        "difference_ci95": row.difference and row.difference.ci95,
        "p_holm": row.p,
        "p_holm_with_seeds": row.p_with_seeds,
        "mark": row.mark,
        "best_step": group.average("best_step"),
        **_make_budget(group),
        **{f"paper_{name}": paper.get(name) for name in ("value", "ci95", "source")},
        "paper_inside": row.in_interval,
        "runs": " ".join(str(run.place) for run in group.runs),
    }


def _make_budget(group: Group) -> dict[str, float | None]:
    outer, inner = count_steps(group) or (None, None)
    return {
        "train_seconds": group.average("seconds", "train"),
        "seconds": group.average("seconds", "total"),
        "drawn_inputs": count_inputs(group),
        "outer_steps": outer,
        "inner_steps": inner,
    }


def _escape_latex(text: str) -> str:
    return "".join(LATEX_ESCAPES.get(letter, letter) for letter in text.replace("\n", "; "))
