"""The results of scripts/bench.py as one picture: ratios of every setting, and how cost grows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt

from contestants.tables import PEER
from metarun.report.figures.charts import GREY, PALETTE, render_png


def picture(results: Mapping[str, Any]) -> bytes | None:
    """A PNG; None where nothing was measured against learn2learn."""
    views = [view for view in (_ratios(results), *_curves(results)) if view is not None]
    return render_png(alt.VConcatChart(vconcat=views, spacing=30).resolve_scale(color="independent")) if views else None


def _ratios(results: Mapping[str, Any]) -> alt.LayerChart | None:
    """Median and quartiles of each contestant's ratio to learn2learn at its default threads."""
    points = [
        {"setting": name, "contestant": contestant, **one[PEER]["seconds"]}
        for name, measured in results["settings"].items()
        for contestant, one in measured["summary"].items()
        if contestant != PEER and PEER in one
    ]
    if not points:
        return None
    settings, names = (list(dict.fromkeys(point[key] for point in points)) for key in ("setting", "contestant"))
    scale = alt.Scale(type="log", nice=False, padding=10)
    title = f"times as fast as {PEER} (median, quartiles)"
    x = alt.X("median:Q", title=title, scale=scale)
    base = alt.Chart(alt.InlineData(values=points)).encode(
        y=alt.Y("setting:N", sort=settings, title=None, axis=alt.Axis(labelLimit=260)),
        yOffset=alt.YOffset("contestant:N", sort=names),
        color=alt.Color("contestant:N", scale=alt.Scale(domain=names, range=_colors(names))),
    )
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("q1:Q", title=title, scale=scale), x2="q3:Q")
    marks = base.mark_point(filled=True, size=50, opacity=1).encode(x=x)
    one = alt.Chart(alt.InlineData(values=[{"x": 1}])).mark_rule(color=GREY, strokeDash=[5, 4]).encode(x="x:Q")
    return alt.LayerChart(layer=[one, bars, marks], width=560, height=alt.Step(12))


def _curves(results: Mapping[str, Any]) -> list[alt.HConcatChart]:
    """Cost and memory against what grows, each as a multiple of its least, beside what linear growth would be."""
    rows = []
    for title, key, what in (("cost of a step", "seconds", "least"), ("peak memory of a step", "mib", "MiB")):
        panels = []
        for name, points in results.get("scaling", {}).items():
            values = [point for point in points if point.get(key) is not None]
            if values and not (key == "mib" and "tasks" not in name):
                panels.append(_curve(name, values, key, f"{title}, {what}"))
        if panels:
            rows.append(alt.HConcatChart(hconcat=panels))
    return rows


def _curve(name: str, points: list[dict[str, Any]], key: str, title: str) -> alt.LayerChart:
    least = {p["contestant"]: p for p in reversed(points)}
    scaled = [p | {"shown": p[key] / (least[p["contestant"]]["seconds"] if key == "seconds" else 1.0)} for p in points]
    names = list(dict.fromkeys(point["contestant"] for point in points))
    x = alt.X("at:Q", title=name)
    color = alt.Color("contestant:N", scale=alt.Scale(domain=names, range=_colors(names)))
    base = alt.Chart(alt.InlineData(values=scaled)).encode(x=x, color=color)
    y = alt.Y("shown:Q", title=title.replace("least", "multiple of the least"))
    layers: list[Any] = [base.mark_line(point=True).encode(y=y)]
    if key == "seconds":
        ends = sorted({point["at"] for point in points})
        line = [{"at": at, "shown": at / ends[0]} for at in (ends[0], ends[-1])]
        layers.insert(
            0, alt.Chart(alt.InlineData(values=line)).mark_line(color=GREY, strokeDash=[5, 4]).encode(x=x, y=y)
        )
    return alt.LayerChart(layer=layers, width=200, height=180)


def _colors(names: list[str]) -> list[str]:
    return [PALETTE[place % len(PALETTE)] for place in range(len(names))]
