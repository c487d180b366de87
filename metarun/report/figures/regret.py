"""What learning online cost, round by round, as a picture. Importing the drawing library takes a second."""

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
