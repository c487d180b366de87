"""A run's curves over its outer steps, drawn with characters."""

from __future__ import annotations

import math
from typing import Any

import plotille

from metarun.core.scores import choose_score
from metarun.core.words import is_percent
from metarun.report.runs import Run


def draw_curves(run: Run, width: int, colors: bool) -> list[str]:
    """Draw the score by which the run is judged, and the loss, each with training and validation together.

    Args:
        run: the run; without metrics.jsonl there is nothing to draw.
        width: columns of the drawing.
        colors: whether the terminal shows colors.
    """
    lines = list(run.lines())
    names = [name for line in lines for name in line if line.get("split") == "val"]
    wanted = dict.fromkeys([choose_score(names, run.directions), "loss"]) if lines else {}
    return [drawn for name in wanted if (drawn := _draw(lines, name, width, colors))]


def _draw(lines: list[dict[str, Any]], name: str, width: int, colors: bool) -> str:
    percent = is_percent(name)
    scale = 100 if percent else 1
    figure = plotille.Figure()
    figure.width, figure.height = max(20, width - 24), 12  # the axis, its numbers and its name take the rest
    figure.with_colors, figure.origin = colors, False
    figure.x_label, figure.y_label = "step", f"{name} %" if percent else name
    figure.x_ticks_fkt = lambda value, _: f"{value:.0f}"
    figure.y_ticks_fkt = lambda value, _: f"{value:.1f}" if percent else f"{value:.3f}"
    drawn = [line for line in lines if math.isfinite(line.get(name, math.nan))]
    steps = [line["step"] for line in drawn if line["split"] != "test"]
    if not steps:
        return ""
    figure.set_x_limits(0, 1.02 * max(steps))  # a marker on the very edge is not drawn
    for split, color, marker in (("train", "blue", None), ("val", "yellow", "o")):
        points = [(line["step"], scale * line[name]) for line in drawn if line["split"] == split]
        if points:
            x, y = zip(*points, strict=True)
            figure.plot(x, y, label=split, lc=color if colors else None, marker=marker)
    return "\n".join(line.rstrip(" ⠀") for line in figure.show(legend=True).splitlines())
