"""The figure of a comparison's result: the score of each group, with a dot for each run and both intervals."""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt

from metarun.core.words import format_with_unit, name_task
from metarun.report.budget import score_guess
from metarun.report.compare import Comparison, Row
from metarun.report.figures.charts import GREY, name_axis, round_score
from metarun.report.figures.figure import Figure


def draw_result(comparison: Comparison, rows: Mapping[str, Row], colors: Mapping[str, str]) -> Figure:
    """Make the figure of a comparison's `rows`, by short names with their colors."""
    has, metric = comparison.shared, comparison.metric
    chance = score_guess(metric, has["n_way"])
    said = ["tick: mean; thick bar: 95 % interval over test tasks"]
    if any(row.over_seeds is not None for row in rows.values()):
        said.append("thin line: 95 % interval over seeds")
    if any(len(row.group.runs) > 1 for row in rows.values()):
        said.append("dots: the runs, one for each seed")
    drawn = chance is not None and _is_near(rows, chance)
    said += [f"{'dashed: ' if drawn else ''}chance is {format_with_unit(metric, chance)}"] if chance is not None else []
    of = filter(None, [has["data"], name_task(has["n_way"], has["k_shot"]), f"bn={has['bn']}"])
    title = f"test {name_axis(metric)}: {', '.join(of)}"
    return Figure("scores", title, draw_scores(rows, metric, colors, chance if drawn else None), tuple(said))


def _is_near(rows: Mapping[str, Row], chance: float) -> bool:
    """Return whether a line at chance leaves the differences between the groups readable."""
    means = [float(mean) for row in rows.values() for mean in row.group.scores.mean(1)]
    return min(means) - chance < max(max(means) - min(means), max(row.over_tasks.ci95 for row in rows.values()))


def draw_scores(rows: Mapping[str, Row], score: str, colors: Mapping[str, str], chance: float | None) -> alt.LayerChart:
    """Draw a line for each group, best first: its mean, both 95 % intervals, and below them a dot for each run.

    Args:
        rows: the rows of a comparison by a short name.
        score: the name of the score.
        colors: the color of each name.
        chance: a score that is marked by a dashed line, if any.
    """
    groups, dots = [], []
    for name, row in rows.items():
        mean, half, seeds = row.over_tasks.mean, row.over_tasks.ci95, row.over_seeds
        ends = {"low": mean - half, "high": mean + half}
        if seeds is not None:
            ends |= {"seeds_low": mean - seeds, "seeds_high": mean + seeds}
        numbers = {key: round_score(score, value) for key, value in {"mean": mean, **ends}.items()}
        groups.append({"group": name, **numbers})
        for run, own in zip(row.group.runs, row.group.scores.mean(1), strict=True):
            dots.append({"group": name, "run": round_score(score, own), "seed": run.value("seed")})
    names = list(rows)
    y = alt.Y("group:N", sort=names, title=None, axis=alt.Axis(labelLimit=180, ticks=False, domain=False))
    x = alt.X("mean:Q", title=name_axis(score), scale=alt.Scale(zero=False, padding=12))
    color = alt.Color("group:N", scale=alt.Scale(domain=names, range=[colors[name] for name in names]), legend=None)
    base = alt.Chart(alt.InlineData(values=groups)).encode(y=y)
    told = ["group:N", "mean:Q", "low:Q", "high:Q"]
    of_tasks = base.mark_rule(strokeWidth=6, yOffset=-7)
    mark = base.mark_tick(thickness=2.5, height=18, yOffset=-7).encode(x=x, color=color, tooltip=told)
    runs = alt.Chart(alt.InlineData(values=dots)).mark_circle(size=55, opacity=0.85, yOffset=9)
    layers = [
        of_tasks.encode(x=alt.X("low:Q", title=name_axis(score)), x2="high:Q", color=color, opacity=alt.value(0.45)),
        mark,
        runs.encode(y=y, x=alt.X("run:Q"), color=color, tooltip=["group:N", "seed:N", "run:Q"]),
    ]
    if several := [point for point in groups if "seeds_low" in point]:
        line = alt.Chart(alt.InlineData(values=several)).mark_rule(strokeWidth=1.5, color=GREY, yOffset=-7)
        layers.insert(0, line.encode(y=y, x=alt.X("seeds_low:Q", title=name_axis(score)), x2="seeds_high:Q"))
    if chance is not None:
        at = alt.Chart(alt.InlineData(values=[{"chance": round_score(score, chance)}])).encode(x=alt.X("chance:Q"))
        layers.append(at.mark_rule(color=GREY, strokeDash=[5, 4]))
    return alt.LayerChart(layer=layers, height=44 * len(rows))
