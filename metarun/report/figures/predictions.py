"""A picture of a learner's predictions for a few functions, with the given points."""

from __future__ import annotations

import altair as alt
from torch import Tensor

from metarun.core.tasks import Batch, Examples, Prediction
from metarun.report.figures.charts import GREY, PALETTE, render_png
from metarun.report.figures.completions import draw_completions

PANEL_COLUMNS = 2

BAND_LABEL = "mean and 95 % band"
"""Label of the band of observations: 1.96 standard deviations to each side of the mean."""


def draw_predictions(batch: Batch, predicted: Prediction) -> bytes | None:
    """Draw each task's support points, query points and predictions for these, as a PNG.

    Functions from places to pixels are drawn as images. None if inputs or outputs have other dimensions.
    """
    if batch.query.x.shape[-1] == 2 and batch.query.y.shape[-1] in (1, 3):
        return draw_completions(batch, predicted)
    if batch.query.x.shape[-1] != 1 or batch.query.y.shape[-1] != 1:
        return None
    panels = [_draw_panel(batch, predicted, task) for task in range(batch.n_tasks)]
    rows = [alt.hconcat(*panels[first : first + PANEL_COLUMNS]) for first in range(0, len(panels), PANEL_COLUMNS)]
    return render_png(alt.vconcat(*rows))


def draw_function(support: Examples, x: Tensor, y: Tensor | None, predicted: Prediction) -> bytes | None:
    """Draw the predictions for one function as a PNG; None if inputs or outputs have other dimensions than one.

    Args:
        support: the given points, x [S, 1] and y [S, 1].
        x: the inputs that were asked for [M, 1].
        y: their values [M, 1], where they are known.
    """
    if x.shape[-1] != 1 or predicted.mean.shape[-1] != 1:
        return None
    order = x[:, 0].argsort()
    one = Examples(support.x[None], support.y[None])
    asked = Examples(x[order][None], (predicted.mean if y is None else y)[order][None])
    drawn = Prediction(predicted.mean[order][None], None if predicted.std is None else predicted.std[order][None])
    panel = _draw_panel(Batch(one, asked, 0), drawn, 0, "", y is not None)
    return render_png(panel.properties(width=560, height=360))


def _draw_panel(
    batch: Batch, predicted: Prediction, task: int, title: str | None = None, known: bool = True
) -> alt.LayerChart:
    """Draw one task.

    Args:
        title: by default the task's number.
        known: whether the values of the query points are; else they are not drawn.
    """
    seen, asked = batch.support, batch.query
    spread = None if predicted.std is None else 1.96 * predicted.std
    said = "mean" if spread is None else BAND_LABEL
    points = [
        {"x": x, "y": y, "what": what}
        for what, side in (*([("query points", asked)] if known else []), ("support points", seen))
        for x, y in zip(_list_numbers(side.x, task), _list_numbers(side.y, task), strict=True)
    ]
    line = [
        {"x": x, "y": y} for x, y in zip(_list_numbers(asked.x, task), _list_numbers(predicted.mean, task), strict=True)
    ]
    if spread is not None:
        for point, half in zip(line, _list_numbers(spread, task), strict=True):
            point |= {"low": point["y"] - half, "high": point["y"] + half}
    colors = {"support points": PALETTE[1], **({"query points": GREY} if known else {}), said: PALETTE[0]}
    kinds = alt.Color("what:N", scale=alt.Scale(domain=list(colors), range=list(colors.values())))
    x, y = alt.X("x:Q", scale=alt.Scale(nice=False), title="x"), alt.Y("y:Q", title="y")
    curve = alt.Chart(alt.InlineData(values=[point | {"what": said} for point in line])).encode(x=x)
    dots = alt.Chart(alt.InlineData(values=points)).encode(x=x, y=y, color=kinds)
    layers = [
        *([] if spread is None else [curve.mark_area(color=PALETTE[0], opacity=0.2).encode(y="low:Q", y2="high:Q")]),
        dots.transform_filter("datum.what === 'query points'").mark_circle(size=16, opacity=0.8),
        curve.mark_line(strokeWidth=2).encode(y=y, color=kinds),
        dots.transform_filter("datum.what === 'support points'").mark_circle(size=70, opacity=1),
    ]
    return alt.LayerChart(layer=layers, title=f"test task {task}" if title is None else title, width=330, height=220)


def _list_numbers(values: Tensor, task: int) -> list[float]:
    flat: list[float] = values[task, :, 0].tolist()
    return flat
