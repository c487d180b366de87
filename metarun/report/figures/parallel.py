"""Parallel coordinates of a sweep: a line for each combination of settings, down to the score it reached."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from metarun.report.compare import Comparison
from metarun.report.figures.charts import GREY, HALO_STYLE, VIEW_NUMBERS, name_axis, round_score
from metarun.report.groups import find_varied
from metarun.report.tables import format_setting, shorten_keys

MAX_LABELLED_VALUES = 6
"""Most different numbers that all get a tick; more numbers get evenly spaced ticks."""

LOGARITHMIC_RATIO = 20
"""Ratio of the largest to the smallest positive number from which the axis is logarithmic."""

LINE_SPREAD = 0.03
"""Fraction of the axis over which lines with the same value are spread."""

MIN_TICK_DISTANCE = 0.09
"""Least distance between ticks, as a fraction of the axis; the labels of nearer ones would overlap."""


def draw_parallel_coordinates(comparison: Comparison) -> alt.LayerChart | None:
    """Draw a row for each setting that was typed and varied, the score below them, and a line for each combination.

    The rows are stacked, so that any number of them fits a narrow screen.

    Returns: None unless there are three combinations and a number that varies.
    """
    scores: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    keys = find_swept(comparison)
    for row in comparison.rows:
        for run, own in zip(row.group.runs, row.group.scores.mean(1), strict=True):
            if (score := round_score(comparison.metric, own)) is not None:
                scores[tuple(run.value(key) for key in keys)].append(score)
    if len(scores) < 3 or not any(_sort_numbers(column) for column in zip(*scores, strict=True)):
        return None
    means = {values: float(np.mean(found)) for values, found in scores.items()}
    drawn = sorted(means, key=means.__getitem__)  # the highest on top
    heads = [*shorten_keys(keys), name_axis(comparison.metric)]
    points: list[dict[str, Any]] = []
    ticks: list[dict[str, Any]] = []
    for place, (head, column) in enumerate(
        zip(heads, [*zip(*drawn, strict=True), [means[v] for v in drawn]], strict=True)
    ):
        positions, labels = place_on_axis(column)
        if place < len(keys):  # equal settings side by side, the higher score to the right
            positions = [at + LINE_SPREAD * (line / (len(drawn) - 1) - 0.5) for line, at in enumerate(positions)]
        ticks += [{"axis": head, "at": at, "label": label} for at, label in labels]
        for line, (values, at) in enumerate(zip(drawn, positions, strict=True)):
            said = ", ".join(f"{name}={format_setting(value)}" for name, value in zip(heads, values, strict=False))
            runs = f"{len(scores[values])} run{'s' * (len(scores[values]) > 1)}"
            said = f"{said}: {means[values]:.5g}, {runs}"
            points.append({"line": line, "axis": head, "place": place, "at": at, "score": means[values], "said": said})
    y = alt.Y(
        "axis:N", sort=heads, title=None,
        axis=alt.Axis(domain=False, ticks=False, grid=False, labelPadding=14, labelLimit=120, labelFontWeight="bold"),
    )  # fmt: skip
    x = alt.X("at:Q", axis=None, scale=alt.Scale(domain=[0, 1], nice=False, padding=30))
    hovered = alt.selection_point(
        name=f"hovered_{next(VIEW_NUMBERS)}", fields=["line"], on="pointerover", clear="pointerout"
    )
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
        labelled.mark_text(dy=-15, fontSize=12, style=style).encode(text="label:N") for style in (HALO_STYLE, "text")
    )
    return alt.LayerChart(layer=[rules, lines, marks, halo, text], height=64 * len(heads))


def find_swept(comparison: Comparison) -> list[str]:
    """Find the settings that differ because the user typed them, and the keys of the groups.

    Settings that follow from a choice, as the learning rate of an algorithm, are left out.
    """
    runs = [run for row in comparison.rows for run in row.group.runs]
    typed = {word.lstrip("+~").partition("=")[0].replace("/", ".") for run in runs for word in run.overrides}
    return [key for key in find_varied(runs, comparison.over) if key in typed or key in comparison.keys]


def place_on_axis(column: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Place each value on an axis from 0 to 1, and choose ticks with labels; a missing value lies at 0."""
    numbers = _sort_numbers(column)
    if not numbers:
        texts = sorted({format_setting(value) for value in column})
        places = {text: index / max(1, len(texts) - 1) for index, text in enumerate(texts)}
        room = max(9, 30 // len(texts))  # letters of a label on a narrow screen; a line's tooltip has all
        labels = [(at, text if len(text) <= room else f"{text[: room - 1]}…") for text, at in places.items()]
        return [places[format_setting(value)] for value in column], labels
    scale = math.log if numbers[0] > 0 and numbers[-1] / numbers[0] >= LOGARITHMIC_RATIO else float
    low, high = scale(numbers[0]), scale(numbers[-1])
    lacking = None in column
    start = 0.2 if lacking else 0.0

    def place(value: float) -> float:
        return start + (1 - start) * (scale(value) - low) / (high - low)

    shares = np.linspace(0, 1, 5)
    even = [
        math.exp(low + share * (high - low)) if scale is math.log else low + share * (high - low) for share in shares
    ]
    labels = [
        (place(value), f"{float(f'{value:.3g}'):g}")
        for value in (numbers if len(numbers) <= MAX_LABELLED_VALUES else even)
    ]
    kept = [labels[0]]
    for at, label in labels[1:-1]:
        if at - kept[-1][0] >= MIN_TICK_DISTANCE and labels[-1][0] - at >= MIN_TICK_DISTANCE:
            kept.append((at, label))
    kept.append(labels[-1])
    return [0.0 if value is None else place(value) for value in column], [(0.0, "-")] * lacking + kept


def _sort_numbers(column: Sequence[Any]) -> list[float]:
    """Sort the different numbers of a column; empty if it holds anything but numbers, or a single number."""
    values = {value for value in column if value is not None}
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return []
    return sorted(values) if len(values) > 1 and all(map(math.isfinite, values)) else []
