"""What became of a stream of tasks, as a picture. Importing the drawing library takes a second."""

from __future__ import annotations

from pathlib import Path

import altair as alt
import numpy as np

from metarun.report.figures.charts import PALETTE, render_png


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
    x = alt.X("task:Q", title="tasks seen")
    losses = alt.Chart(alt.InlineData(values=rows)).mark_line().encode(x, alt.Y("sum:Q", title="sum of losses"), color)
    rows = [{"task": place + 1, "regret": float(value)} for place, value in enumerate(regret)]
    line = (
        alt.Chart(alt.InlineData(values=rows)).mark_line(color=PALETTE[2]).encode(x, alt.Y("regret:Q", title="regret"))
    )
    return render_png(alt.hconcat(losses.properties(width=330), line.properties(width=330)))


def draw_accuracies(file: Path) -> bytes:
    """Draw how well each task was known as the tasks came, mean over streams, as a PNG.

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
    color = alt.Color("accuracy:Q", scale=alt.Scale(domain=[0, 1], scheme="viridis"), legend=alt.Legend(format="%"))
    axis = alt.Axis(labelAngle=0, labelOverlap=True)
    x, y = (alt.X("tasks learned:O", axis=axis), alt.Y("task:O", axis=axis))
    cells = alt.Chart(alt.InlineData(values=rows)).mark_rect().encode(x, y, color)
    known = [
        {"tasks learned": int(time), "accuracy": float(np.nanmean(values))}
        for time, values in zip(times, means.T, strict=True)
    ]
    mean = alt.Y("accuracy:Q", title="accuracy, mean over the tasks so far", scale=alt.Scale(domain=[0, 1]))
    line = alt.Chart(alt.InlineData(values=known)).mark_line(color=PALETTE[0], point=True)
    line = line.encode(alt.X("tasks learned:Q"), mean)
    return render_png(alt.hconcat(cells.properties(width=330, height=330), line.properties(width=330, height=330)))
