"""Learning curves of groups of runs, as figures: scores of different tasks never share an axis unsaid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from metarun.report.budget import describe_testing, describe_training, find_chance
from metarun.report.compare import Row
from metarun.report.figures.charts import draw_learning_curves
from metarun.report.figures.figure import Figure
from metarun.report.figures.learning import read_curves

FEW = 5
"""Fewer validations than these hardly make a curve."""

AXES: tuple[tuple[Literal["step", "seconds"], str, str], ...] = (
    ("step", "curves-by-step", "outer step"), ("seconds", "curves-by-time", "training time")
)  # fmt: skip


def draw_curves(rows: Mapping[str, Row], metric: str, colors: Mapping[str, str]) -> list[Figure]:
    """Draw validation and training on one axis if the tasks of all are alike, else in a figure each."""
    curves = {name: read_curves(row.group.runs, metric) for name, row in rows.items()}
    every = [curve for splits in curves.values() for curve in splits.values()]
    portion = max((curve.portion for curve in every), default=1)
    time = "at each step, the mean time that the runs had trained; validation is not counted"
    shared = ["the band goes from the lowest to the highest run"] if any(curve.runs > 1 for curve in every) else []
    shared += [f"thinned: a point is the mean of up to {portion} logged lines"] if portion > 1 else []
    few = max((len(splits["val"].step) for splits in curves.values() if "val" in splits), default=FEW)
    shared += [f"validated {few} times: run.val_every=STEPS makes more points"] if few < FEW else []
    runs = [run for row in rows.values() for run in row.group.runs]
    tested, trained = ({describe(run) for run in runs} for describe in (describe_testing, describe_training))
    of_val, chances = _name_some("validation", tested), {find_chance(run, metric) for run in runs}
    chance = chances.pop() if len(chances) == 1 else None
    found = []
    for by, name, across in AXES:
        more = [time] if by == "seconds" else []
        if tested == trained and len(tested) == 1:
            labels = {"val": of_val, "train": _name_some("training", trained)}
            title = f"learning curves by {across}"
            said = ["thick, with points: validation, mean over the runs; thin: training", *more, *shared]
        else:
            labels, title = {"val": of_val}, f"{of_val}, by {across}"
            said = ["mean over the runs", *more, *shared]
        if view := draw_learning_curves(curves, metric, by, colors, labels, chance):
            found.append(Figure(name, title, view, tuple(said)))
    if tested != trained or len(tested) > 1:
        named = {name: _name_training(name, row) for name, row in rows.items()}
        renamed = {named[name]: splits for name, splits in curves.items()}
        own = {named[name]: colors[name] for name in rows}
        if view := draw_learning_curves(renamed, metric, "step", own, {"train": "training"}):
            aside = "each on its own training tasks: not to be compared with validation, nor with tasks of other ways"
            found.append(Figure("training-by-step", "training, by outer step", view, (aside,)))
    return found


def _name_some(split: str, tasks: set[str]) -> str:
    return f"{split}, {next(iter(tasks))}" if len(tasks) == 1 and tasks != {""} else split


def _name_training(name: str, row: Row) -> str:
    tasks = {describe_training(run) for run in row.group.runs}
    return f"{name}: {', '.join(sorted(tasks))}"
