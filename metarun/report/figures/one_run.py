"""The learning curves of one run as a picture. Importing the drawing library takes a second."""

from __future__ import annotations

from pathlib import Path

import altair as alt

from metarun.core.scores import choose_score
from metarun.report.budget import describe_testing, describe_training, find_chance
from metarun.report.figures import charts
from metarun.report.figures.learning import read_curves
from metarun.report.listing import describe_run
from metarun.report.runs import read_run


def draw_run_curves(folder: Path) -> bytes | None:
    """Draw the learning curves of the run in `folder` as a PNG; None before its first validation."""
    run = read_run(folder)
    names = [name for line in run.lines() for name in line if line["split"] == "val"] if run else []
    if run is None or not names:
        return None
    score = choose_score(names, run.directions)
    curves = {describe_run(run): read_curves([run], score)}
    tested, trained = describe_testing(run), describe_training(run)
    chance = find_chance(run, score)
    labels = {"val": f"validation, {tested}" if tested else "validation"}
    panels = [labels]
    if tested == trained:
        labels["train"] = f"training, {trained}" if trained else "training"
    else:  # the scores of other tasks do not belong on one axis
        panels.append({"train": f"training, {trained}"})
    views: list[alt.LayerChart] = []
    for number, some in enumerate(panels):
        view = charts.draw_learning_curves(curves, score, labels=some, chance=None if number else chance)
        if view:
            views.append(view.properties(width=560, title=describe_run(run) if not views else ""))
    return charts.render_png(alt.vconcat(*views).resolve_scale(color="independent")) if views else None
