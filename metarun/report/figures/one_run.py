"""The learning curves of one run as a picture. Importing the drawing library takes a second."""

from __future__ import annotations

from pathlib import Path

from metarun.core.scores import choose_score
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
    view = charts.draw_learning_curves({describe_run(run): read_curves([run], score)}, score)
    return charts.render_png(view.properties(width=460)) if view else None
