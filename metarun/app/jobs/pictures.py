"""Pictures of one run, in its folder and in its sinks: its first tasks, what it predicts, its learning curves."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL.Image import Image

from metarun.algos.base.abilities import Drawing, Predicting
from metarun.core.tasks import Batch
from metarun.core.whole import CannotWrite, write_bytes, written_whole
from metarun.run.parts import Parts
from metarun.run.tracking.pictures import draw_tasks
from metarun.run.tracking.sink import Sink

TASKS_DRAWN = 3
TASKS_PREDICTED = 4

log = logging.getLogger(__name__)


@contextmanager
def ends_no_run(picture: str) -> Iterator[None]:
    """Inside, a picture that cannot be drawn is told in a line, with the traceback in run.log, and the run goes on.

    Raises: CannotWrite, where the disk is full.
    """
    try:
        yield
    except CannotWrite:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        log.warning("%s cannot be drawn, and the run goes on without it: %s", picture, text)
        log.info("%s cannot be drawn", picture, exc_info=error)


@ends_no_run("episodes.png")
def show_tasks(first: Batch, parts: Parts, sinks: Sequence[Sink]) -> None:
    """Draw the first training tasks into episodes.png if they are images."""
    picture = draw_tasks(
        first, TASKS_DRAWN, name_classes(parts.source, "train", TASKS_DRAWN), None, parts.source.info.normalisation
    )
    if picture:
        path = parts.folder / "episodes.png"
        save_picture(picture, path)
        for sink in sinks:
            sink.show("episodes", path)


def name_classes(source: object, split: str, n_tasks: int) -> list[list[str]]:
    """Name the classes of the first tasks of a split, by label; empty if the source has no names."""
    labels = getattr(source, "labels", None)
    return [labels(split, index) for index in range(n_tasks)] if labels else []


@ends_no_run("predictions.png")
def show_predictions(parts: Parts, sinks: Sequence[Sink]) -> None:
    """Draw the learner's predictions for the first test tasks into predictions.png if they are functions."""
    learner = parts.learner.eval()
    if not isinstance(learner, Predicting) or parts.source.info.n_way:
        return
    batch = next(parts.source.episodes("test", 0, TASKS_PREDICTED))
    predicted = learner.predictions(batch)
    if predicted is None:
        return
    from metarun.report.figures.predictions import draw_predictions  # imports the drawing library: a second

    if picture := draw_predictions(batch, predicted):
        path = parts.folder / "predictions.png"
        write_bytes(path, picture)
        for sink in sinks:
            sink.show("predictions", path)


@ends_no_run("the method's own picture")
def show_drawings(parts: Parts, sinks: Sequence[Sink]) -> None:
    """Save the learner's own drawings of the first test tasks, each as NAME.png."""
    if not isinstance(parts.learner, Drawing):
        return
    n_tasks = getattr(parts.learner, "tasks_drawn", TASKS_PREDICTED)
    batch = next(parts.learner.eval().eval_stream(parts.source, "test", 0, n_tasks))
    for name, picture in parts.learner.draw(batch).items():
        path = parts.folder / f"{name}.png"
        save_picture(picture, path)
        for sink in sinks:
            sink.show(name, path)


@ends_no_run("the picture of the stream")
def show_stream(folder: Path, sinks: Sequence[Sink]) -> None:
    """Draw what a run wrote of streams of tasks: its regret, or the accuracies on tasks as time went by."""
    for name in ("regret", "continual"):
        file, path = folder / f"{name}.npz", folder / f"{name}.png"
        if not file.is_file():
            continue
        from metarun.report.figures import stream  # imports the drawing library

        write_bytes(path, stream.draw_regret(file) if name == "regret" else stream.draw_accuracies(file))
        for sink in sinks:
            sink.show(name, path)


@ends_no_run("curves.png")
def show_curves(folder: Path, sinks: Sequence[Sink]) -> None:
    """Draw learning curves into curves.png if a sink shows pictures."""
    if not any(sink.shows for sink in sinks):
        return
    from metarun.report.figures.one_run import draw_run_curves  # imports the drawing library as well

    if picture := draw_run_curves(folder):
        path = folder / "curves.png"
        write_bytes(path, picture)
        for sink in sinks:
            sink.show("curves", path)


def save_picture(picture: Image, path: Path) -> None:
    """Save a picture as PNG, whole or not at all."""
    with written_whole(path) as file:
        picture.save(file, "PNG")
