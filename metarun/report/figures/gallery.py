"""The figures of comparisons, each with notes for the reader; and all of them as one picture."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt

from metarun.core.words import name_queries
from metarun.report.compare import Comparison, Row
from metarun.report.figures.charts import PALETTE, draw_task_scatter, name_axis
from metarun.report.figures.curve_figures import draw_curves
from metarun.report.figures.figure import Figure
from metarun.report.figures.parallel import draw_parallel_coordinates
from metarun.report.figures.profile import draw_profile
from metarun.report.figures.scores import draw_result
from metarun.report.figures.shots import draw_shot_curves
from metarun.report.groups import COMPARABLE_FIELDS, LEADING_KEYS
from metarun.report.tables import make_heading, shorten_keys

MAX_GROUPS = len(PALETTE)
"""Most groups that a figure shows."""

SHOT_FIELDS = ("k_shot", "episode_sha256")
"""The COMPARABLE_FIELDS that may differ between the points of one line over the shots."""


@dataclass(frozen=True)
class Gallery:
    """The figures of several comparisons.

    Attributes:
        own: the figures of each comparison.
        across: the figures of several comparisons together.
        names: for each comparison, the rows that are drawn, by a short name.
        colors: the color of each name, the same in all figures.
    """

    own: tuple[tuple[Figure, ...], ...]
    across: tuple[Figure, ...]
    names: tuple[Mapping[str, Row], ...]
    colors: Mapping[str, str]


def make_gallery(comparisons: Sequence[Comparison]) -> Gallery:
    """Draw all figures that have something to show."""
    names = tuple(_choose_rows(comparison, _name_rows(comparison, comparisons)) for comparison in comparisons)
    families = _collect_shots(comparisons, names)
    colors = _choose_colors([*names, *([point["group"] for point in points] for _, points in families)])
    own = tuple(_draw_own(*pair, colors) for pair in zip(comparisons, names, strict=True))
    metric = comparisons[0].metric
    across = [_draw_shots(title, points, metric, colors) for title, points in families]
    numbered = across if len(across) == 1 else [replace(f, name=f"{f.name}-{i}") for i, f in enumerate(across, 1)]
    return Gallery(own, tuple(numbered), names, colors)


def name_views(found: Gallery) -> dict[str, alt.LayerChart]:
    """Return each figure with a size, by a name for its file: `tasks`, or `2-tasks` for table 2."""
    several = len(found.own) > 1
    views = {
        f"{place}-{figure.name}" if several else figure.name: _set_size(figure)
        for place, figures in enumerate(found.own, 1)
        for figure in figures
    }
    return views | {figure.name: _set_size(figure) for figure in found.across}


def join_views(comparisons: Sequence[Comparison], found: Gallery) -> alt.ConcatChart:
    """Join all figures in rows of three, those of each comparison under its title."""
    parts = []
    for place, figures in enumerate((*found.own, found.across)):
        title = make_heading(comparisons, place).split("\n") if place < len(comparisons) else ""
        views = [_set_size(figure).properties(title=figure.title) for figure in figures]
        if views:
            part = alt.concat(
                *views, columns=3, spacing=40, align="each", title=alt.Title(title, fontSize=17, offset=20)
            )
            own: dict[str, Any] = dict.fromkeys(("color", "strokeWidth", "size"), "independent")
            parts.append(part.resolve_scale(**own))
    return alt.concat(*parts, columns=1, spacing=60).properties(padding=20)


def _set_size(figure: Figure) -> alt.LayerChart:
    return figure.view.properties(width=340 if figure.form == "square" else 460)


def _draw_own(comparison: Comparison, rows: Mapping[str, Row], colors: Mapping[str, str]) -> tuple[Figure, ...]:
    metric, best = comparison.metric, next(iter(rows))
    found = []
    if len(comparison.rows) > 1 or len(comparison.rows[0].group.runs) > 1:
        found.append(draw_result(comparison, rows, colors))
    if not any(run.place != run.folder for row in rows.values() for run in row.group.runs):
        found += draw_curves(rows, metric, colors)
    if len(rows) > 1:
        other = next((name for name, row in rows.items() if row.mark == "baseline" and name != best), list(rows)[1])
        scores = {name: row.group.scores.mean(0) for name, row in rows.items()}
        said = ("a point is a test task, a larger point several with the same scores; scores are means over the runs",)
        if view := draw_task_scatter(scores, metric, other, best):
            found.append(Figure("tasks", f"{name_axis(metric)} task by task", view, said, "square"))
    if profile := draw_profile(rows, metric, colors):
        found.append(profile)
    if len(rows) < len(comparison.rows):
        part = f"the best {len(rows)} of {len(comparison.rows)} groups"
        part += ", with the baseline" if any(row.mark == "baseline" for row in rows.values()) else ""
        found = [replace(figure, said=(*figure.said, part)) for figure in found]
    if view := draw_parallel_coordinates(comparison):
        said = ("a line is a combination of settings, its score the mean over its runs, yellow the highest",)
        found.append(Figure("settings", "settings and score", view, said, "wide"))
    return tuple(found)


def _collect_shots(
    comparisons: Sequence[Comparison], names: Sequence[Mapping[str, Row]]
) -> list[tuple[str, list[dict[str, Any]]]]:
    """Collect title and points of each set of comparisons that differ only in the shots and share a group."""
    families: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for place, comparison in enumerate(comparisons):
        if comparison.shared["k_shot"]:
            families[tuple(comparison.shared[field] for field in COMPARABLE_FIELDS if field not in SHOT_FIELDS)].append(
                place
            )
    found: list[tuple[str, list[dict[str, Any]]]] = []
    for family, places in families.items():
        of_shots = {comparisons[place].shared["k_shot"]: names[place] for place in places}
        counts = Counter(name for rows in of_shots.values() for name in rows)
        kept = [name for name, count in counts.most_common(MAX_GROUPS)]
        if len(of_shots) == len(places) and max(counts.values()) > 1:
            data, n_way, n_query, query, bn, *_ = family
            points = [
                {
                    "group": name, "k_shot": shots, "mean": row.over_tasks.mean, "ci95": row.over_tasks.ci95,
                    "runs": row.group.scores.mean(1),
                }
                for shots, rows in of_shots.items() for name, row in rows.items() if name in kept
            ]  # fmt: skip
            found.append((f"{data}, {n_way}-way, {name_queries(n_query, n_way, query)}, bn={bn}", points))
    return found


def _draw_shots(title: str, points: Sequence[Mapping[str, Any]], metric: str, colors: Mapping[str, str]) -> Figure:
    several = any(len(point["runs"]) > 1 for point in points)
    said = ("bars: 95 % intervals over test tasks, as in the tables", "rings: the runs' own means")[: 1 + several]
    view = draw_shot_curves(points, metric, colors)
    return Figure("shots", f"{name_axis(metric)} over shots: {title}", view, said)


def _name_rows(comparison: Comparison, comparisons: Sequence[Comparison]) -> dict[str, Row]:
    """Give the rows short names, by which a group has the same name in every comparison."""
    keys = list(dict.fromkeys(key for each in comparisons for key in each.keys))
    found: dict[str, Row] = {}
    for row in comparison.rows:
        values = [{run.value(key) for run in row.group.runs} for key in keys]
        words = [
            str(value) if key in LEADING_KEYS else f"{head}={value}"
            for key, head, (value, *others) in zip(keys, shorten_keys(keys), values, strict=True)
            if value is not None and not others
        ]
        found[", ".join(words) or _name_algo(row)] = row
    if len(found) < len(comparison.rows):
        return {f"{number} {row.group.values}": row for number, row in enumerate(comparison.rows, 1)}
    return found


def _name_algo(row: Row) -> str:
    algos = {str(run.value("algo")) for run in row.group.runs}
    return algos.pop() if len(algos) == 1 else "all runs"


def _choose_rows(comparison: Comparison, rows: Mapping[str, Row]) -> dict[str, Row]:
    """Choose the best rows and the baseline."""
    kept = list(rows)[:MAX_GROUPS]
    baseline = [name for name, row in rows.items() if row.mark == "baseline" and name not in kept]
    return {name: rows[name] for name in [*kept[: MAX_GROUPS - len(baseline)], *baseline]}


def _choose_colors(charts: Sequence[Iterable[str]]) -> dict[str, str]:
    """Choose a colour for each name, so that the names of one chart differ as long as the palette suffices."""
    together = [list(dict.fromkeys(chart)) for chart in charts]
    colors: dict[str, str] = {}
    for name in dict.fromkeys(name for chart in together for name in chart):
        beside = [colors[other] for chart in together if name in chart for other in chart if other in colors]
        colors[name] = min(PALETTE, key=beside.count)
    return colors
