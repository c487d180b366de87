"""The score over the shots, for tests of several groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from metarun.report.figures.charts import encode_color, name_axis, round_score

GROUP_OFFSET = 1.035
"""Factor between the positions of neighbouring groups over the same number of shots."""


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
    base = alt.Chart(alt.InlineData(values=records)).encode(x=x, color=encode_color(groups, colors))
    line = base.mark_line(strokeWidth=2).encode(y=y)
    bars = base.mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q", title=name_axis(score)), y2="high:Q")
    marks = base.mark_point(filled=True, size=70, opacity=1).encode(
        y=y, tooltip=["group:N", "k_shot:Q", "mean:Q", "low:Q", "high:Q", "runs:Q"]
    )
    runs = alt.Chart(alt.InlineData(values=single)).mark_point(size=30, xOffset=9).encode(
        x=x, y=alt.Y("run:Q"), color=encode_color(groups, colors), tooltip=["group:N", "k_shot:Q", "run:Q"]
    )  # fmt: skip
    return alt.LayerChart(layer=[line, bars, marks, *([runs] if single else [])], height=300)
