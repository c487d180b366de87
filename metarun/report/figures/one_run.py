"""The learning curves of one run as a picture; imports the drawing library, which takes a second."""

from __future__ import annotations

from pathlib import Path

from metarun.core.scores import choose_score
from metarun.report.figures import charts
from metarun.report.figures.learning import learning
from metarun.report.listing import what
from metarun.report.runs import read_run


def curve_picture(folder: Path) -> bytes | None:
    """The learning curves of the run in `folder` as a PNG, None before its first validation."""
    run = read_run(folder)
    names = [name for line in run.lines() for name in line if line["split"] == "val"] if run else []
    if run is None or not names:
        return None
    score = choose_score(names, run.directions)
    view = charts.learning_curves({what(run): learning([run], score)}, score)
    return charts.png(view.properties(width=460)) if view else None
