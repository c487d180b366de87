"""The figure of how many seeds of each group reach a score, for groups that no single number tells apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np

from metarun.report.compare import Row
from metarun.report.figures.charts import encode_color, name_axis, round_score
from metarun.report.figures.figure import Figure
from metarun.report.stats import MIN_SEEDS


def draw_profile(rows: Mapping[str, Row], score: str, colors: Mapping[str, str]) -> Figure | None:
    """Draw the performance profiles of a comparison's `rows`, by short names with their colors.

    Returns: None if fewer than two groups have MIN_SEEDS runs.
    Reference: Agarwal, Schwarzer, Castro, Courville, Bellemare. Deep Reinforcement Learning at the Edge of the
        Statistical Precipice. NeurIPS 2021. arXiv:2108.13264, section 4.2.
    """
    means = {name: np.sort(row.group.scores.mean(1)) for name, row in rows.items()}
    means = {name: runs for name, runs in means.items() if len(runs) >= MIN_SEEDS}
    if len(means) < 2:
        return None
    low, high = min(runs[0] for runs in means.values()), max(runs[-1] for runs in means.values())
    points: list[dict[str, Any]] = []
    for name, runs in means.items():
        steps = [(low, 1.0), *((at, float((runs >= at).mean())) for at in runs), (high, 0.0)]
        points += [
            {"group": name, "at": round_score(score, float(at)), "share": share, "order": order}
            for order, (at, share) in enumerate(steps)
        ]
    lines = alt.Chart(alt.InlineData(values=points)).mark_line(interpolate="step-before")
    drawn = lines.encode(
        x=alt.X("at:Q", title=name_axis(score), scale=alt.Scale(zero=False)),
        y=alt.Y("share:Q", title="share of seeds with as much or more"),
        color=encode_color(means, colors),
        order="order:Q",
    )
    said = ("a line falls at the mean of each seed: the further right, the higher the scores",)
    return Figure("profile", f"seeds over {name_axis(score)}", alt.LayerChart(layer=[drawn], height=280), said)
