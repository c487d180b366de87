"""Figures of runs and groups of runs, drawn by Altair for a page, or as a picture without a browser.

Every function returns one view without a size and a look; `make_spec` and `render_png` add those.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import altair as alt
import numpy as np
import vl_convert
from numpy.typing import NDArray

from metarun.core.words import is_percent
from metarun.report.figures.learning import Curve

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
"""Okabe and Ito's colours without black and yellow. People with any colour vision can distinguish them."""

GREY = "#888888"
"""A grey that is visible on white and on black."""

GROUP_OFFSET = 1.035
"""Factor between the positions of neighbouring groups over the same number of shots."""

VIEW_NUMBERS = itertools.count()
"""Numbers for the names of selections: joined views must not share a selection."""

HALO_STYLE = "halo"
"""The style of a text in the background's colour, drawn under another text to keep that readable."""

VEGA_LITE_VERSION = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
"""Major and minor version of Vega-Lite."""

TIME_UNITS = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))

VEGA_LITE_CONFIG = {
    "font": "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif",
    "axis": {"labelFontSize": 12, "titleFontSize": 13, "titlePadding": 8, "gridOpacity": 0.5},
    "legend": {
        "orient": "bottom", "layout": {"bottom": {"anchor": "start", "direction": "vertical"}}, "title": None,
        "labelFontSize": 13, "labelLimit": 300, "symbolOpacity": 1, "symbolStrokeWidth": 2.5,
    },
    "title": {"fontSize": 14, "anchor": "start", "offset": 12},
    "view": {"stroke": None},
    "style": {HALO_STYLE: {"stroke": "white", "strokeWidth": 4, "strokeJoin": "round"}},
}  # fmt: skip
"""Vega-Lite's config."""


def draw_learning_curves(
    groups: Mapping[str, Mapping[str, Curve]],
    score: str,
    by: Literal["step", "seconds"] = "step",
    colors: Mapping[str, str] | None = None,
) -> alt.LayerChart | None:
    """Draw validation curves (thick, with points and a band from the lowest to the highest run) and training curves.

    Args:
        groups: the curves of each group's runs, from `read_curves`; one run is a group as well.
        score: the score of the curves.
        by: the horizontal axis: the outer step, or the seconds spent in training.
        colors: the color of each group; by default the palette in order.
    Returns: None if nothing was logged.
    """
    curves = {(name, split): curve for name, splits in groups.items() for split, curve in splits.items()}
    if by == "seconds":
        curves = {key: curve for key, curve in curves.items() if curve.seconds is not None}
    if not curves:
        return None
    longest = max((float(curve.seconds[-1]) for curve in curves.values() if curve.seconds is not None), default=0.0)
    unit, unit_name = next((unit for unit in TIME_UNITS if longest >= 2 * unit[0]), TIME_UNITS[-1])
    records = []
    for (name, split), curve in curves.items():
        seconds = np.full(len(curve.step), np.nan) if curve.seconds is None else curve.seconds
        for step, time, *scores in zip(curve.step, seconds / unit, curve.mean, curve.low, curve.high, strict=True):
            mean, low, high = (round_score(score, value) for value in scores)
            kind = {"val": "validation", "train": "training"}[split]
            point = {"group": name, "split": kind, "step": round_number(step), "time": round_number(time)}
            records.append(point | {"mean": mean, "low": low, "high": high, "runs": curve.runs})
    x = alt.X("step:Q", title="outer step") if by == "step" else alt.X("time:Q", title=f"training time, {unit_name}")
    y = alt.Y("mean:Q", title=name_axis(score), scale=alt.Scale(zero=False))
    base = alt.Chart(alt.InlineData(values=records)).encode(
        x=x, color=_encode_color(groups, colors or dict(zip(groups, itertools.cycle(PALETTE), strict=False)))
    )
    picked = alt.selection_point(name=f"picked_{next(VIEW_NUMBERS)}", fields=["group"], bind="legend")
    visible = alt.when(picked)
    validation = base.transform_filter("datum.split === 'validation'")
    width = alt.Scale(domain=["validation", "training"], range=[2.5, 1])
    lines = base.mark_line().encode(
        y=y,
        strokeWidth=alt.StrokeWidth("split:O", scale=width, title=None),
        opacity=visible.then(alt.value(1)).otherwise(alt.value(0.12)),
    )
    band = validation.mark_area().encode(
        y=alt.Y("low:Q", title=name_axis(score)), y2="high:Q",
        opacity=visible.then(alt.value(0.2)).otherwise(alt.value(0.03)),
    )  # fmt: skip
    points = validation.mark_point(filled=True, size=45).encode(
        y=y,
        opacity=visible.then(alt.value(1)).otherwise(alt.value(0.12)),
        tooltip=["group:N", "step:Q", alt.Tooltip("time:Q", title=unit_name), "mean:Q", "low:Q", "high:Q", "runs:Q"],
    )
    return alt.LayerChart(layer=[band, lines.add_params(picked), points], height=280)


def draw_task_scatter(
    scores: Mapping[str, NDArray[np.floating[Any]]], score: str, across: str, up: str
) -> alt.LayerChart | None:
    """Draw every test task by its scores in two groups; a reader of the page can choose the groups.

    Args:
        scores: the scores of each group [tasks], on the same tasks.
        score: the name of the score.
        across, up: the groups shown first.
    Returns: None if no task was scored in all groups.
    """
    names = list(scores)
    columns = [[round_score(score, value) for value in scores[name]] for name in names]
    tasks = [dict(zip(names, task, strict=True)) for task in zip(*columns, strict=True) if None not in task]
    if not tasks:
        return None
    low, high = (choose(choose(task.values()) for task in tasks) for choose in (min, max))
    low, high = (low, high) if low < high else (low - 1, high + 1)
    x_group, y_group = (
        alt.param(value=value, bind=alt.binding_select(options=names, name=f"{way} "))
        for way, value in (("across", across), ("up", up))
    )
    domain = alt.Scale(domain=[low, high], nice=False, zero=False, padding=8)
    x, y = alt.X("x:Q", title=None, scale=domain), alt.Y("y:Q", title=None, scale=domain)
    base = alt.Chart(alt.InlineData(values=tasks)).transform_calculate(
        x=f"datum[{x_group.name}]", y=f"datum[{y_group.name}]", above="datum.y > datum.x", below="datum.y < datum.x"
    )
    size = alt.Size("tasks:Q", scale=alt.Scale(domain=[0, 50], range=[0, 1400], clamp=True), legend=None)  # square px
    points = (
        base.transform_aggregate(tasks="count()", groupby=["x", "y"])
        .mark_circle(color=PALETTE[0], opacity=0.5)
        .encode(x=x, y=y, size=size, tooltip=["x:Q", "y:Q", "tasks:Q"])
    )
    ends = alt.InlineData(values=[{"x": end, "y": end} for end in (low, high)])
    diagonal = alt.Chart(ends).mark_line(color=GREY, strokeDash=[5, 4], strokeWidth=1.5).encode(x=x, y=y)
    said = "'above the diagonal ' + datum.above + ', on it ' + (datum.all - datum.above - datum.below)"
    counts = (
        base.transform_aggregate(above="sum(above)", below="sum(below)", all="count()")
        .transform_calculate(said=f"{said} + ', below ' + datum.below")
        .mark_text(align="left", fontSize=13)
        .encode(text="said:N", x=alt.value(0), y=alt.value(-10))
    )
    middle = alt.datum((low + high) / 2)
    written: dict[str, Any] = {"fontSize": 13, "fontWeight": "bold", "limit": 330}
    titled = alt.Chart(alt.InlineData(values=[{}]))  # axis titles that follow the reader's choice
    below = titled.mark_text(text=alt.expr(x_group.name), dy=36, **written).encode(x=middle, y=alt.value("height"))
    beside = titled.mark_text(text=alt.expr(y_group.name), dy=-46, angle=270, **written).encode(
        x=alt.value(0), y=middle
    )
    points = points.add_params(x_group, y_group)
    return alt.LayerChart(layer=[diagonal, points, counts, below, beside], height=340)


def draw_shot_curves(
    points: Sequence[Mapping[str, Any]], score: str, colors: Mapping[str, str], shot: str = "support examples a class"
) -> alt.LayerChart:
    """Draw the score over the shots, with the points of several groups side by side.

    Args:
        points: each has `group`, `k_shot`, `mean`, `ci95` over tasks, and the means of its `runs`.
        score: the name of the score.
        colors: the color of each group.
        shot: the unit of the shots.
    """
    records, single = [], []
    groups = list(dict.fromkeys(point["group"] for point in points))
    for point in points:
        aside = GROUP_OFFSET ** (groups.index(point["group"]) - (len(groups) - 1) / 2)
        here = {"group": point["group"], "k_shot": point["k_shot"], "place": point["k_shot"] * aside}
        ends = {"low": point["mean"] - point["ci95"], "high": point["mean"] + point["ci95"]}
        numbers = {name: round_score(score, value) for name, value in {"mean": point["mean"], **ends}.items()}
        records.append({**here, **numbers, "runs": len(point["runs"])})
        single += [{**here, "run": round_score(score, mean)} for mean in point["runs"] if len(point["runs"]) > 1]
    shots = sorted({point["k_shot"] for point in points})
    x = alt.X(
        "place:Q", title=f"shots ({shot})", axis=alt.Axis(values=shots, format="d"),
        scale=alt.Scale(type="log", domain=[shots[0] * 0.9, shots[-1] * 1.1], nice=False),
    )  # fmt: skip
    y = alt.Y("mean:Q", title=name_axis(score), scale=alt.Scale(zero=False))
    base = alt.Chart(alt.InlineData(values=records)).encode(x=x, color=_encode_color(groups, colors))
    line = base.mark_line(strokeWidth=2).encode(y=y)
    bars = base.mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q", title=name_axis(score)), y2="high:Q")
    marks = base.mark_point(filled=True, size=70, opacity=1).encode(
        y=y, tooltip=["group:N", "k_shot:Q", "mean:Q", "low:Q", "high:Q", "runs:Q"]
    )
    runs = alt.Chart(alt.InlineData(values=single)).mark_point(size=30, xOffset=9).encode(
        x=x, y=alt.Y("run:Q"), color=_encode_color(groups, colors), tooltip=["group:N", "k_shot:Q", "run:Q"]
    )  # fmt: skip
    return alt.LayerChart(layer=[line, bars, marks, *([runs] if single else [])], height=300)


def make_spec(view: alt.TopLevelMixin) -> dict[str, Any]:
    """Make the Vega-Lite specification, with the look that all figures share."""
    return {**view.to_dict(), "config": VEGA_LITE_CONFIG}


def render_png(view: alt.TopLevelMixin) -> bytes:
    """Render a PNG at twice the size, for print and for screens of high resolution."""
    return vl_convert.vegalite_to_png(make_spec(view), vl_version=VEGA_LITE_VERSION, scale=2)


def name_axis(score: str) -> str:
    return f"{score} %" if is_percent(score) else score


def round_score(score: str, value: float) -> float | None:
    """Round a score to five digits, an accuracy in per cent; None if it is not finite."""
    return round_number(100 * value if is_percent(score) else value)


def round_number(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _encode_color(groups: Iterable[str], colors: Mapping[str, str]) -> alt.Color:
    """Encode the groups' colors, with a legend in as many columns as fit a narrow screen."""
    names = list(groups)
    columns = max(1, min(4, 44 // (4 + max(map(len, names)))))
    legend = alt.Legend(columns=columns) if len(names) > 1 else None
    return alt.Color("group:N", scale=alt.Scale(domain=names, range=[colors[name] for name in names]), legend=legend)
