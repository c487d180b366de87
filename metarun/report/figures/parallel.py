"""Parallel coordinates of a sweep: a line for each combination of settings, down to the score it reached."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from metarun.report.compare import Comparison
from metarun.report.figures.charts import COUNT, GREY, HALO, shown, title_of
from metarun.report.groups import varied
from metarun.report.tables import short, word

DISTINCT = 6
"""More different numbers than these get evenly spaced ticks."""

WIDE = 20
"""Positive numbers of which the largest is this many times the smallest are spaced by their logarithms."""

SPREAD = 0.03
"""The part of the axis over which lines with the same value are spread."""

NEAR = 0.09
"""Ticks nearer than this part of the axis would lie on each other."""


def parallel_coordinates(comparison: Comparison) -> alt.LayerChart | None:
    """A row for each setting that was typed and varied, the score below, a line for each combination.

    The rows lie one below the other, so that any number of them fits a narrow screen.

    Returns: None without three combinations and a number that varies.
    """
    scores: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    keys = swept(comparison)
    for row in comparison.rows:
        for run, own in zip(row.group.runs, row.group.scores.mean(1), strict=True):
            if (score := shown(comparison.metric, own)) is not None:
                scores[tuple(run.value(key) for key in keys)].append(score)
    if len(scores) < 3 or not any(_numbers(column) for column in zip(*scores, strict=True)):
        return None
    means = {values: float(np.mean(found)) for values, found in scores.items()}
    drawn = sorted(means, key=means.__getitem__)  # the highest on top
    heads = [*short(keys), title_of(comparison.metric)]
    points: list[dict[str, Any]] = []
    ticks: list[dict[str, Any]] = []
    for place, (head, column) in enumerate(
        zip(heads, [*zip(*drawn, strict=True), [means[v] for v in drawn]], strict=True)
    ):
        positions, labels = axis(column)
        if place < len(keys):  # equal settings side by side, the higher score to the right
            positions = [at + SPREAD * (line / (len(drawn) - 1) - 0.5) for line, at in enumerate(positions)]
        ticks += [{"axis": head, "at": at, "label": label} for at, label in labels]
        for line, (values, at) in enumerate(zip(drawn, positions, strict=True)):
            said = ", ".join(f"{name}={word(value)}" for name, value in zip(heads, values, strict=False))
            runs = f"{len(scores[values])} run{'s' * (len(scores[values]) > 1)}"
            said = f"{said}: {means[values]:.5g}, {runs}"
            points.append({"line": line, "axis": head, "place": place, "at": at, "score": means[values], "said": said})
    y = alt.Y(
        "axis:N", sort=heads, title=None,
        axis=alt.Axis(domain=False, ticks=False, grid=False, labelPadding=14, labelLimit=120, labelFontWeight="bold"),
    )  # fmt: skip
    x = alt.X("at:Q", axis=None, scale=alt.Scale(domain=[0, 1], nice=False, padding=30))
    hovered = alt.selection_point(name=f"hovered_{next(COUNT)}", fields=["line"], on="pointerover", clear="pointerout")
    lines = (
        alt.Chart(alt.InlineData(values=points))
        .mark_line(strokeWidth=2.5)
        .encode(
            x=x, y=y, detail="line:N", order="place:Q",
            color=alt.Color("score:Q", scale=alt.Scale(scheme="viridis"), legend=None),
            opacity=alt.when(hovered).then(alt.value(0.85)).otherwise(alt.value(0.1)),
            tooltip=alt.Tooltip("said:N", title="run"),
        )
        .add_params(hovered)
    )  # fmt: skip
    labelled = alt.Chart(alt.InlineData(values=ticks)).encode(x=x, y=y)
    rules = labelled.mark_line(color=GREY, strokeWidth=1).encode(detail="axis:N")
    marks = labelled.mark_tick(orient="vertical", size=10, thickness=1.5, color=GREY)
    halo, text = (
        labelled.mark_text(dy=-15, fontSize=12, style=style).encode(text="label:N") for style in (HALO, "text")
    )
    return alt.LayerChart(layer=[rules, lines, marks, halo, text], height=64 * len(heads))


def swept(comparison: Comparison) -> list[str]:
    """The settings that differ because somebody typed them, and the keys of the groups.

    What differs along with a choice, as the learning rate that an algorithm comes with, is not of the sweep.
    """
    runs = [run for row in comparison.rows for run in row.group.runs]
    typed = {word.lstrip("+~").partition("=")[0].replace("/", ".") for run in runs for word in run.overrides}
    return [key for key in varied(runs, comparison.over) if key in typed or key in comparison.keys]


def axis(column: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Where each value lies, from 0 to 1, and the ticks with their labels; a value that a run lacks lies at 0."""
    numbers = _numbers(column)
    if not numbers:
        texts = sorted({word(value) for value in column})
        places = {text: index / max(1, len(texts) - 1) for index, text in enumerate(texts)}
        room = max(9, 30 // len(texts))  # letters of a label on a narrow screen; a line's tooltip has all
        labels = [(at, text if len(text) <= room else f"{text[: room - 1]}…") for text, at in places.items()]
        return [places[word(value)] for value in column], labels
    scale = math.log if numbers[0] > 0 and numbers[-1] / numbers[0] >= WIDE else float
    low, high = scale(numbers[0]), scale(numbers[-1])
    lacking = None in column
    start = 0.2 if lacking else 0.0

    def place(value: float) -> float:
        return start + (1 - start) * (scale(value) - low) / (high - low)

    shares = np.linspace(0, 1, 5)
    even = [
        math.exp(low + share * (high - low)) if scale is math.log else low + share * (high - low) for share in shares
    ]
    labels = [(place(value), f"{float(f'{value:.3g}'):g}") for value in (numbers if len(numbers) <= DISTINCT else even)]
    kept = [labels[0]]
    for at, label in labels[1:-1]:
        if at - kept[-1][0] >= NEAR and labels[-1][0] - at >= NEAR:
            kept.append((at, label))
    kept.append(labels[-1])
    return [0.0 if value is None else place(value) for value in column], [(0.0, "-")] * lacking + kept


def _numbers(column: Sequence[Any]) -> list[float]:
    """The different numbers of a column of numbers, ascending; none where something else is in it, or all are one."""
    values = {value for value in column if value is not None}
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return []
    return sorted(values) if len(values) > 1 and all(map(math.isfinite, values)) else []
