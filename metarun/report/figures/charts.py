"""Figures of runs and groups of runs, drawn by Altair for a page, or as a picture without a browser.

Every function returns one view without a size and a look; `make_spec` and `render_png` add those.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
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

VIEW_NUMBERS = itertools.count()
"""Numbers for the names of selections: joined views must not share a selection."""

HALO_STYLE = "halo"
"""The style of a text in the background's colour, drawn under another text to keep that readable."""

VEGA_LITE_VERSION = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
"""Major and minor version of Vega-Lite."""

SPLIT_NAMES = {"val": "validation", "train": "training"}

TIME_UNITS = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))

VEGA_LITE_CONFIG = {
    "font": "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif",
    "axis": {"labelFontSize": 12, "titleFontSize": 13, "titlePadding": 8, "gridOpacity": 0.5, "labelSeparation": 5},
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
    labels: Mapping[str, str] = SPLIT_NAMES,
    chance: float | None = None,
) -> alt.LayerChart | None:
    """Draw validation curves (thick, with points and a band from the lowest to the highest run) and training curves.

    Args:
        groups: the curves of each group's runs, from `read_curves`; one run is a group as well.
        score: the score of the curves.
        by: the horizontal axis: the outer step, or the seconds spent in training.
        colors: the color of each group; by default the palette in order.
        labels: what the legend says of each split; others are not drawn.
        chance: the score of guessing; a dashed line.
    Returns: None if nothing was logged.
    """
    curves = {
        (name, split): curve for name, splits in groups.items() for split, curve in splits.items() if split in labels
    }
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
            point = {"group": name, "split": SPLIT_NAMES[split], "step": round_number(step), "time": round_number(time)}
            records.append(point | {"mean": mean, "low": low, "high": high, "runs": curve.runs})
    x = alt.X("step:Q", title="outer step") if by == "step" else alt.X("time:Q", title=f"training time, {unit_name}")
    y = alt.Y("mean:Q", title=name_axis(score), scale=alt.Scale(zero=False))
    drawn = [SPLIT_NAMES[split] for split in labels if any(key[1] == split for key in curves)]
    said = " : ".join(f"datum.label === {SPLIT_NAMES[split]!r} ? {label!r}" for split, label in labels.items())
    legend = alt.Legend(labelExpr=f"{said} : datum.label", columns=1) if len(drawn) > 1 else None
    color = encode_color(groups, colors or dict(zip(groups, itertools.cycle(PALETTE), strict=False)))
    if len(groups) == 1:  # its splits are told apart by colour
        scale = alt.Scale(domain=drawn, range=list(PALETTE[: len(drawn)]))
        color, legend = alt.Color("split:N", scale=scale, legend=legend, title=None), None
    base = alt.Chart(alt.InlineData(values=records)).encode(x=x, color=color)
    picked = alt.selection_point(name=f"picked_{next(VIEW_NUMBERS)}", fields=["group"], bind="legend")
    visible = alt.when(picked)
    validation = base.transform_filter("datum.split === 'validation'")
    width = alt.Scale(domain=drawn, range=[2.5, 1] if len(drawn) > 1 else [2])
    lines = base.mark_line().encode(
        y=y,
        strokeWidth=alt.StrokeWidth("split:O", scale=width, title=None, legend=legend),
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
    layers = [band, lines.add_params(picked), points, *([] if chance is None else draw_chance(score, chance))]
    return alt.LayerChart(layer=layers, height=280)


def draw_chance(score: str, chance: float) -> list[alt.Chart]:
    """Draw a dashed line at the score of guessing, with the word."""
    at = alt.Chart(alt.InlineData(values=[{"chance": round_score(score, chance), "word": "chance"}]))
    y = alt.Y("chance:Q", title=name_axis(score))
    word = at.mark_text(align="right", dy=-7, fontSize=12, color=GREY).encode(x=alt.value("width"), y=y, text="word:N")
    return [at.mark_rule(color=GREY, strokeDash=[5, 4]).encode(y=y), word]


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


def encode_color(groups: Iterable[str], colors: Mapping[str, str]) -> alt.Color:
    """Encode the groups' colors, with a legend in as many columns as fit a narrow screen."""
    names = list(groups)
    columns = max(1, min(4, 44 // (4 + max(map(len, names)))))
    legend = alt.Legend(columns=columns) if len(names) > 1 else None
    return alt.Color("group:N", scale=alt.Scale(domain=names, range=[colors[name] for name in names]), legend=legend)
