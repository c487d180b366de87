"""Pictures of what policies do: paths on a plane, regret on bandits. Importing the drawing libraries takes a second."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import torch
import vl_convert
from PIL import Image
from torch import Tensor

PALETTE = ("#8C8C8C", "#E69F00", "#56B4E9", "#0072B2", "#D55E00", "#009E73")
"""Okabe and Ito's colours after a grey."""


def draw_paths(paths: Sequence[Tensor], goal: Tensor) -> Image.Image:
    """Draw the ways of a few episodes of each task, before adaptation and after each inner step, and the goals.

    All tasks have the same part of the plane, and a unit is as long upwards as sideways.

    Args:
        paths: places [B, R, T, 2] after 0, 1, ... inner steps.
        goal: [B, 2].
    """
    names = [f"after {step} steps" if step != 1 else "after 1 step" for step in range(len(paths))]
    names[0] = "before adaptation"
    axes = find_square(torch.cat([goal, *(places.flatten(0, 2) for places in paths)]))
    x_axis, y_axis = (
        axis(f"{name}:Q", title=None, scale=scale) for axis, name, scale in zip((alt.X, alt.Y), "xy", axes, strict=True)
    )
    panels = []
    for task in range(len(goal)):
        rows = [
            {"x": x, "y": y, "t": t, "line": f"{step}/{episode}", "when": names[step]}
            for step, places in enumerate(paths)
            for episode, path in enumerate(places[task].tolist())
            for t, (x, y) in enumerate(path)
        ]
        color = alt.Color("when:N", title=None, scale=alt.Scale(domain=names, range=list(PALETTE[: len(names)])))
        ways = (
            alt.Chart(alt.InlineData(values=rows))
            .mark_line(opacity=0.7, strokeWidth=1.5)
            .encode(x_axis, y_axis, color, detail="line:N", order="t:Q")
        )
        x, y = goal[task].tolist()
        place = alt.Chart(alt.InlineData(values=[{"x": x, "y": y}])).mark_point(
            shape="cross", size=180, filled=True, color="#D55E00", angle=45
        )
        panels.append((ways + place.encode(x_axis, y_axis)).properties(width=260, height=260, title=f"task {task}"))
    rows_of_two = [alt.hconcat(*panels[first : first + 2]) for first in range(0, len(panels), 2)]
    return _render(alt.vconcat(*rows_of_two))


def find_square(places: Tensor) -> tuple[alt.Scale, alt.Scale]:
    """Return the scales of x and y of the smallest square with all places [n, 2], and a margin of 5 %."""
    low, high = places.amin(0), places.amax(0)
    middle, half = (low + high) / 2, 0.55 * (high - low).max().clamp_min(1e-6).item()
    x, y = (alt.Scale(domain=[m - half, m + half], nice=False) for m in middle.tolist())
    return x, y


def draw_regret(rewards: Mapping[str, Tensor], means: Tensor) -> Image.Image:
    """Draw what each method has lost after each pull against always pulling the best arm, the mean over tasks.

    Args:
        rewards: of each pull [B, n], by method.
        means: what the arms pay on average [B, k].
    """
    best = means.amax(-1, keepdim=True)
    rows = [
        {"pull": pull + 1, "regret": value, "method": f"{name}: {lost[-1]:.2f}"}
        for name, lost in ((name, (best - paid).cumsum(1).mean(0).tolist()) for name, paid in rewards.items())
        for pull, value in enumerate(lost)
    ]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    color = alt.Color(
        "method:N", title=None, scale=alt.Scale(domain=methods, range=list(PALETTE[3 : 3 + len(methods)]))
    )
    return _render(
        alt.Chart(alt.InlineData(values=rows))
        .mark_line(strokeWidth=2)
        .encode(alt.X("pull:Q"), alt.Y("regret:Q", title=f"regret, mean over {len(means)} bandits"), color)
        .properties(width=420, height=280)
    )


def _render(view: Any) -> Image.Image:
    """Render at twice the size, for screens of high resolution."""
    version = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    png = vl_convert.vegalite_to_png(view.to_dict(), vl_version=version, scale=2)
    return Image.open(io.BytesIO(png))
