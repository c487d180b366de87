"""Which figures comparisons have, each with what a reader must know of it; all of them as one picture."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt

from metarun.report.compare import Comparison, Row
from metarun.report.figures.charts import PALETTE, learning_curves, shot_curves, task_scatter, title_of
from metarun.report.figures.learning import learning
from metarun.report.figures.parallel import parallel_coordinates
from metarun.report.groups import APART, LEADING
from metarun.report.tables import heading, short

LIMIT = len(PALETTE)
"""Groups in a figure."""

WITH_SHOTS = ("k_shot", "episode_sha256")
"""The fields of APART in which points of one line over the shots differ."""


@dataclass(frozen=True)
class Figure:
    """A drawing.

    Attributes:
        name: for a file.
        title: what it shows.
        view: the drawing itself.
        said: what a reader must know.
        form: `square`, `wide` where a page has the room, or neither.
    """

    name: str
    title: str
    view: alt.LayerChart
    said: tuple[str, ...]
    form: str = ""


@dataclass(frozen=True)
class Gallery:
    """The figures of several comparisons.

    Attributes:
        own: of each comparison.
        across: of several together.
        names: of each comparison, the rows that are drawn, by a short name.
        colors: of each name, the same in all figures.
    """

    own: tuple[tuple[Figure, ...], ...]
    across: tuple[Figure, ...]
    names: tuple[Mapping[str, Row], ...]
    colors: Mapping[str, str]


def gallery(comparisons: Sequence[Comparison]) -> Gallery:
    """All figures that have something to show."""
    names = tuple(_drawn(comparison, _named(comparison, comparisons)) for comparison in comparisons)
    families = _over_shots(comparisons, names)
    colors = _colors([*names, *([point["group"] for point in points] for _, points in families)])
    own = tuple(_own(*pair, colors) for pair in zip(comparisons, names, strict=True))
    metric = comparisons[0].metric
    across = [_shots(title, points, metric, colors) for title, points in families]
    numbered = across if len(across) == 1 else [replace(f, name=f"{f.name}-{i}") for i, f in enumerate(across, 1)]
    return Gallery(own, tuple(numbered), names, colors)


def apart(found: Gallery) -> dict[str, alt.LayerChart]:
    """Each figure with a size of its own, by a name for its file: `tasks`, or `2-tasks` of table 2."""
    several = len(found.own) > 1
    views = {
        f"{place}-{figure.name}" if several else figure.name: _sized(figure)
        for place, figures in enumerate(found.own, 1)
        for figure in figures
    }
    return views | {figure.name: _sized(figure) for figure in found.across}


def together(comparisons: Sequence[Comparison], found: Gallery) -> alt.ConcatChart:
    """All figures in rows of three, those of each comparison under its title."""
    parts = []
    for place, figures in enumerate((*found.own, found.across)):
        title = heading(comparisons, place).split("\n") if place < len(comparisons) else ""
        views = [_sized(figure).properties(title=figure.title) for figure in figures]
        if views:
            part = alt.concat(
                *views, columns=3, spacing=40, align="each", title=alt.Title(title, fontSize=17, offset=20)
            )
            own: dict[str, Any] = dict.fromkeys(("color", "strokeWidth", "size"), "independent")
            parts.append(part.resolve_scale(**own))
    return alt.concat(*parts, columns=1, spacing=60).properties(padding=20)


def _sized(figure: Figure) -> alt.LayerChart:
    return figure.view.properties(width=340 if figure.form == "square" else 460)


def _own(comparison: Comparison, rows: Mapping[str, Row], colors: Mapping[str, str]) -> tuple[Figure, ...]:
    metric, best = comparison.metric, next(iter(rows))
    found = _curves(rows, metric, colors)
    if len(rows) > 1:
        other = next((name for name, row in rows.items() if row.mark == "baseline" and name != best), list(rows)[1])
        scores = {name: row.group.scores.mean(0) for name, row in rows.items()}
        said = ("a point is a test task, a larger point several with the same scores; scores are means over the runs",)
        if view := task_scatter(scores, metric, other, best):
            found.append(Figure("tasks", f"{title_of(metric)} task by task", view, said, "square"))
    if len(rows) < len(comparison.rows):
        part = f"the best {len(rows)} of {len(comparison.rows)} groups"
        part += ", with the baseline" if any(row.mark == "baseline" for row in rows.values()) else ""
        found = [replace(figure, said=(*figure.said, part)) for figure in found]
    if view := parallel_coordinates(comparison):
        said = ("a line is a combination of settings, its score the mean over its runs, yellow the highest",)
        found.append(Figure("settings", "settings and score", view, said, "wide"))
    return tuple(found)


def _curves(rows: Mapping[str, Row], metric: str, colors: Mapping[str, str]) -> list[Figure]:
    curves = {name: learning(row.group.runs, metric) for name, row in rows.items()}
    every = [curve for splits in curves.values() for curve in splits.values()]
    portion = max((curve.portion for curve in every), default=1)
    thick = "thick, with points: validation, mean over the runs; thin: training, whose tasks may be of another size"
    time = "at each step, the mean time that the runs had trained; validation is not counted"
    shared = ["the band goes from the lowest to the highest run"] if any(curve.runs > 1 for curve in every) else []
    shared += [f"thinned: a point is the mean of up to {portion} logged lines"] if portion > 1 else []
    found = []
    if view := learning_curves(curves, metric, "step", colors):
        found.append(Figure("curves-by-step", "learning curves by step", view, (thick, *shared)))
    if view := learning_curves(curves, metric, "seconds", colors):
        found.append(Figure("curves-by-time", "learning curves by time", view, (time, *shared)))
    return found


def _over_shots(
    comparisons: Sequence[Comparison], names: Sequence[Mapping[str, Row]]
) -> list[tuple[str, list[dict[str, Any]]]]:
    """Title and points of each set of comparisons that differ in nothing but the shots, where a group is in several."""
    families: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for place, comparison in enumerate(comparisons):
        if comparison.shared["k_shot"]:
            families[tuple(comparison.shared[field] for field in APART if field not in WITH_SHOTS)].append(place)
    found: list[tuple[str, list[dict[str, Any]]]] = []
    for family, places in families.items():
        of_shots = {comparisons[place].shared["k_shot"]: names[place] for place in places}
        counts = Counter(name for rows in of_shots.values() for name in rows)
        kept = [name for name, count in counts.most_common(LIMIT)]
        if len(of_shots) == len(places) and max(counts.values()) > 1:
            data, n_way, n_query, bn, *_ = family
            points = [
                {
                    "group": name, "k_shot": shots, "mean": row.over_tasks.mean, "ci95": row.over_tasks.ci95,
                    "runs": row.group.scores.mean(1),
                }
                for shots, rows in of_shots.items() for name, row in rows.items() if name in kept
            ]  # fmt: skip
            found.append((f"{data}, {n_way}-way, {n_query} queries a class, bn={bn}", points))
    return found


def _shots(title: str, points: Sequence[Mapping[str, Any]], metric: str, colors: Mapping[str, str]) -> Figure:
    several = any(len(point["runs"]) > 1 for point in points)
    said = ("bars: 95 % intervals over test tasks, as in the tables", "rings: the runs' own means")[: 1 + several]
    view = shot_curves(points, metric, colors)
    return Figure("shots", f"{title_of(metric)} over shots: {title}", view, said)


def _named(comparison: Comparison, comparisons: Sequence[Comparison]) -> dict[str, Row]:
    """The rows by a short name that says in every comparison the same of a group."""
    keys = list(dict.fromkeys(key for each in comparisons for key in each.keys))
    found: dict[str, Row] = {}
    for row in comparison.rows:
        values = [{run.value(key) for run in row.group.runs} for key in keys]
        words = [
            str(value) if key in LEADING else f"{head}={value}"
            for key, head, (value, *others) in zip(keys, short(keys), values, strict=True)
            if value is not None and not others
        ]
        found[", ".join(words) or _algo(row)] = row
    if len(found) < len(comparison.rows):
        return {f"{number} {row.group.values}": row for number, row in enumerate(comparison.rows, 1)}
    return found


def _algo(row: Row) -> str:
    algos = {str(run.value("algo")) for run in row.group.runs}
    return algos.pop() if len(algos) == 1 else "all runs"


def _drawn(comparison: Comparison, rows: Mapping[str, Row]) -> dict[str, Row]:
    """The best, and the baseline."""
    kept = list(rows)[:LIMIT]
    baseline = [name for name, row in rows.items() if row.mark == "baseline" and name not in kept]
    return {name: rows[name] for name in [*kept[: LIMIT - len(baseline)], *baseline]}


def _colors(charts: Sequence[Iterable[str]]) -> dict[str, str]:
    """A colour for each name, such that those of one chart differ as long as there are colours."""
    together = [list(dict.fromkeys(chart)) for chart in charts]
    colors: dict[str, str] = {}
    for name in dict.fromkeys(name for chart in together for name in chart):
        beside = [colors[other] for chart in together if name in chart for other in chart if other in colors]
        colors[name] = min(PALETTE, key=beside.count)
    return colors
