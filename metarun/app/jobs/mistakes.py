"""Pictures of a trained classifier's mistakes in test tasks: the first tasks, and the hardest classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from metarun.algos.base.abilities import AdaptsToTask
from metarun.app.jobs.pictures import TASKS_DRAWN, save_picture
from metarun.app.jobs.reopened import Trained
from metarun.app.jobs.retests import Retest
from metarun.core.batches import MixedBatch
from metarun.core.errors import ConfigError
from metarun.core.tasks import Batch, Examples
from metarun.core.whole import write_bytes
from metarun.report.figures.hardest import draw_hardest
from metarun.report.mistakes import Hard, find_hardest
from metarun.run.tracking.pictures import convert_image, draw_tasks

HARDEST = 8
"""Classes that are drawn."""


def draw_mistakes(run: Trained, values: Mapping[str, Any], mode: str) -> tuple[list[Hard], list[Path]]:
    """Answer the queries of the test with `values` in BatchNorm mode `mode`, and draw the mistakes.

    Returns: the hardest classes, and the files in the run's folder of later tests.
    Raises: ConfigError for tasks without images or names of classes.
    """
    test = Retest.plan(run, values, mode)
    source: Any = test.open_source()
    learner, n_tasks = run.make_learner(test.settings).eval(), test.settings.run["test_tasks"]
    if run.others:
        raise ConfigError("--pictures: the mistakes of one checkpoint are drawn; leave out --checkpoint ensemble")
    labels = getattr(source, "labels", None)
    if labels is None or not isinstance(learner, AdaptsToTask):
        raise ConfigError("--pictures: only for classes of images with names, and learners that answer single queries")
    drawn: list[tuple[Batch, torch.Tensor]] = []  # the first tasks, one by one
    counted, images = [], dict[str, Image.Image]()
    at_once = test.settings.run["eval_batch_size"]
    for first in range(0, n_tasks, at_once):
        batch = next(source.episodes("test", first, at_once)).tasks(0, n_tasks - first)
        for place in range(batch.n_tasks):
            task, names = batch.tasks(place, place + 1), labels("test", first + place)
            answers = _answer(learner, task)  # [M]
            if len(drawn) < TASKS_DRAWN:
                drawn.append((task, answers))
            counted.append((names, task.query.y[0].tolist(), answers.tolist()))
            for image, label in zip(task.support.x[0], task.support.y[0].tolist(), strict=True):
                if names[label] not in images:
                    low, high = image.min(), image.max()
                    images[names[label]] = convert_image((image - low) / (high - low).clamp_min(1e-8), image.shape[-1])
    tasks, answered = MixedBatch(tuple(task for task, _ in drawn)), [answers for _, answers in drawn]
    names_drawn = [names for names, _, _ in counted[: len(drawn)]]
    picture = draw_tasks(tasks, len(drawn), names_drawn, answered, source.info.normalisation)
    if picture is None:
        raise ConfigError("--pictures: the inputs are no images of one or three channels")
    folder, stem = test.file.parent, test.file.stem
    folder.mkdir(exist_ok=True)
    files = [folder / f"{stem}-tasks.png"]
    save_picture(picture, files[0])
    if hardest := find_hardest(counted, HARDEST):
        files.append(folder / f"{stem}-hardest.png")
        write_bytes(files[1], draw_hardest(hardest, images, n_tasks))
    return hardest, files


def _answer(learner: AdaptsToTask, task: Batch) -> torch.Tensor:
    """Return the label that is answered for each query of a task [M]."""
    predict = learner.adapt_to(Examples(task.support.x[0], task.support.y[0]), task.n_way, **task.facts(0))
    return predict(task.query.x[0]).argmax(-1).cpu()
