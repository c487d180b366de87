"""What became of a stream of tasks, as a picture. Importing the drawing library takes a second."""

from __future__ import annotations

from pathlib import Path

import altair as alt
import numpy as np

from metarun.report.figures.charts import GREY, PALETTE, render_png

WHOLE = alt.Axis(format="d", tickMinStep=1)
"""The axis of whole numbers."""


def draw_regret(file: Path) -> bytes:
    """Draw what a stream of tasks cost, as the tasks came and in hindsight, and the regret between, as a PNG.

    Args:
        file: a run's regret.npz.
    """
    with np.load(file) as found:
        sums = {
            "as the tasks came": found["loss"].cumsum(),
            "with the best start in hindsight": found["hindsight"].cumsum(),
        }
        regret = found["regret"]
    rows = [
        {"task": place + 1, "sum": float(value), "of": name}
        for name, values in sums.items()
        for place, value in enumerate(values)
    ]
    color = alt.Color("of:N", title=None, scale=alt.Scale(domain=list(sums), range=list(PALETTE)))
    x = alt.X("task:Q", title="tasks seen", axis=WHOLE)
    losses = alt.Chart(alt.InlineData(values=rows)).mark_line().encode(x, alt.Y("sum:Q", title="sum of losses"), color)
    rows = [{"task": place + 1, "regret": float(value)} for place, value in enumerate(regret)]
    line = (
        alt.Chart(alt.InlineData(values=rows)).mark_line(color=PALETTE[2]).encode(x, alt.Y("regret:Q", title="regret"))
    )
    return render_png(alt.hconcat(losses.properties(width=330), line.properties(width=330)))


def draw_accuracies(file: Path) -> bytes:
    """Draw how well each task was known as the tasks came, mean over streams, as a PNG.

    Of a run that asked once, after all tasks, it is one panel: each task, and the mean over tasks.

    Args:
        file: a run's continual.npz.
    """
    with np.load(file) as found:
        means, times = found["accuracy"].mean(0), found["times"]  # [task, time], NaN before a task came
    rows = [
        {"task": task + 1, "tasks learned": int(time), "accuracy": float(value)}
        for task, values in enumerate(means)
        for time, value in zip(times, values, strict=True)
        if np.isfinite(value)
    ]
    known = [
        {"tasks learned": int(time), "accuracy": float(np.nanmean(values))}
        for time, values in zip(times, means.T, strict=True)
    ]
    share = alt.Y("accuracy:Q", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1]))
    cells, line = alt.Chart(alt.InlineData(values=rows)), alt.Chart(alt.InlineData(values=known))
    if len(times) == 1:
        each = cells.mark_point(color=PALETTE[0], filled=True, size=50, opacity=1)
        title = f"accuracy after all {times[0]} tasks, and its mean"
        both = each.encode(alt.X("task:Q", axis=WHOLE), share.title(title)) + line.mark_rule(color=GREY).encode(share)
        return render_png(both.properties(width=500, height=330))
    axis, percent = alt.Axis(labelAngle=0, labelOverlap=True), alt.Legend(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    matrix = cells.mark_rect().encode(
        alt.X("tasks learned:O", axis=axis),
        alt.Y("task:O", axis=axis),
        alt.Color("accuracy:Q", scale=alt.Scale(domain=[0, 1], scheme="viridis"), legend=percent),
    )
    line = line.mark_line(color=PALETTE[0], point={"color": PALETTE[0]}).encode(
        alt.X("tasks learned:Q", axis=WHOLE), share.title("accuracy, mean over the tasks so far")
    )
    return render_png(alt.hconcat(matrix.properties(width=330, height=330), line.properties(width=330, height=330)))
