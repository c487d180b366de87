"""Comparisons as one self-contained page: tables, figures, and the settings in which the runs differ."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment

from metarun.core.command import join
from metarun.core.secrets import mask
from metarun.core.words import format_value
from metarun.report.compare import Comparison
from metarun.report.figures.charts import VEGA_LITE_VERSION, make_spec, name_axis
from metarun.report.figures.figure import Figure
from metarun.report.figures.gallery import Gallery
from metarun.report.groups import find_varied
from metarun.report.pair_table import make_pair_caption, make_pair_cells
from metarun.report.tables import count_words, format_setting, make_caption, make_cells, make_heading


def render_page(
    comparisons: Sequence[Comparison], found: Gallery, notes: Sequence[str], command: Sequence[object]
) -> str:
    """Render a page that loads nothing: the drawing program and all numbers are in it.

    Args:
        comparisons: at least one comparison.
        found: their figures.
        notes: notes on runs left out.
        command: the command line after `metarun`.
    """
    datasets: dict[str, Any] = {}
    every = [run for comparison in comparisons for row in comparison.rows for run in row.group.runs]
    runs, tests = {run.folder for run in every}, sum(run.place != run.folder for run in every)
    later = f" and {tests} later test{'s' * (tests > 1)} of them" if tests else ""
    return fill_page(
        title=f"Comparison of {len(runs)} run{'s' * (len(runs) > 1)}{later}",
        command=mask(join(["metarun", *command])),
        tables=[_describe_table(comparisons, place, found, datasets) for place in range(len(comparisons))],
        across=[describe_figure(figure, datasets) for figure in found.across],
        settings=_describe_settings(comparisons),
        notes=notes,
        datasets=datasets,
    )


def fill_page(**parts: Any) -> str:
    """Fill page.html with its parts and the drawing program."""
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        Path(__file__).with_name("page.html").read_text()
    )
    vega = vl_convert.javascript_bundle(vl_version=VEGA_LITE_VERSION)  # type: ignore[call-arg]  # the stub alone wants a snippet
    return template.render(**parts, vega=vega.replace("</script", r"<\/script"))


def _describe_table(
    comparisons: Sequence[Comparison], place: int, found: Gallery, datasets: dict[str, Any]
) -> dict[str, Any]:
    comparison = comparisons[place]
    heads, lines = make_cells(comparison)
    names = {id(row): name for name, row in found.names[place].items()}
    colors = [names.get(id(row)) for row in comparison.rows]
    title, *apart = make_heading(comparisons, place).split("\n")
    return {
        "title": title,
        "apart": apart,
        "heads": heads,
        "words": range(count_words(comparison)),
        "rows": [
            {"cells": line, "mark": row.mark, "color": name and found.colors[name]}
            for row, line, name in zip(comparison.rows, lines, colors, strict=True)
        ],
        "caption": make_caption(comparison),
        "pairs": _describe_pairs(comparison),
        "figures": [describe_figure(figure, datasets) for figure in found.own[place]],
    }


def _describe_pairs(comparison: Comparison) -> dict[str, Any]:
    heads, lines = make_pair_cells(comparison)
    caption = make_pair_caption(comparison)
    return {"heads": heads, "words": [0], "rows": [{"cells": line} for line in lines], "caption": caption}


def describe_figure(figure: Figure, datasets: dict[str, Any]) -> dict[str, Any]:
    """Describe the figure, and move its data into `datasets`, where figures with the same data share it."""
    drawing = make_spec(figure.view.properties(width="container"))
    datasets |= drawing.pop("datasets", {})
    return {"title": figure.title, "said": figure.said, "form": figure.form, "spec": drawing}


def _describe_settings(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Describe a table of the settings in which the runs differ, a line for each run; empty if they do not differ."""
    members = [
        (table, run, mean)
        for table, comparison in enumerate(comparisons, 1)
        for row in comparison.rows
        for run, mean in zip(row.group.runs, row.group.scores.mean(1), strict=True)
    ]
    runs = [run for _, run, _ in members]
    keys = find_varied(runs, ())
    if not keys:
        return {}
    keys.sort(key=lambda key: len({run.value(key) for run in runs} - {None}) < 2)  # of one method: last
    base = os.path.commonpath([run.folder.resolve().parent for run in runs])
    metric = comparisons[0].metric
    heads = [name_axis(metric), *keys, "run"]
    lines = [
        [
            format_value(metric, mean),
            *(format_setting(run.value(key)) for key in keys),
            os.path.relpath(run.place.resolve(), base),
        ]
        for _, run, mean in members
    ]
    if len(comparisons) > 1:
        heads = ["table", *heads]
        lines = [[str(table), *line] for (table, *_), line in zip(members, lines, strict=True)]
    rows = [{"cells": line} for line in lines]
    return {"base": _shorten_folder(base), "heads": heads, "words": [len(heads) - 1], "rows": rows}


def _shorten_folder(folder: str) -> str:
    """Return how to get to a folder from here; from elsewhere, its name alone: a page goes to other people."""
    here = Path.cwd().resolve()
    return os.path.relpath(folder, here) if Path(folder).is_relative_to(here) else Path(folder).name
