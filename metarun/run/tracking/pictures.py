"""A picture of tasks of images, a row for each class with support images first."""

from __future__ import annotations

from PIL import Image, ImageDraw
from torch import Tensor

from metarun.core.tasks import Batch

CLASSES, IMAGES = 10, 5
"""At most so many classes of a task, and images of each side of a class, are drawn."""

GAP, LABEL, TITLE = 6, 22, 20
"""Pixels between the two sides, for a class's number, and for a task's heading."""

PAPER, INK = 255, 60
"""Grey values of the background and of words."""


def episode_picture(batch: Batch, n_tasks: int) -> Image.Image | None:
    """The first tasks of a batch, one above the other; None where the inputs are not images.

    Images are shown from their task's darkest value, black, to its brightest, white: normalisation is not undone.
    """
    if batch.support.x.ndim != 5 or batch.support.x.shape[2] not in (1, 3) or not batch.n_way:
        return None
    tasks = [_task(batch, number) for number in range(min(n_tasks, batch.n_tasks))]
    sheet = Image.new("RGB", (max(t.width for t in tasks), sum(t.height for t in tasks)), (PAPER,) * 3)
    top = 0
    for task in tasks:
        sheet.paste(task, (0, top))
        top += task.height
    return sheet


def _task(batch: Batch, number: int) -> Image.Image:
    one = batch.tasks(number, number + 1)
    low, high = one.support.x.min(), one.support.x.max()
    sides = [
        [(side.x[0][side.y[0] == label][:IMAGES] - low) / (high - low).clamp_min(1e-8) for label in range(batch.n_way)]
        for side in (one.support, one.query)
    ]
    cell = max(32, int(batch.support.x.shape[-1])) + 2
    widths = [max(len(images) for images in side) * cell for side in sides]
    rows = min(batch.n_way, CLASSES)
    picture = Image.new("RGB", (LABEL + widths[0] + GAP + widths[1] + GAP, TITLE + rows * cell + GAP), (PAPER,) * 3)
    draw = ImageDraw.Draw(picture)
    draw.text((2, 4), f"task {number}: {_cut(batch, rows)}", fill=(INK,) * 3)
    for label in range(rows):
        top = TITLE + label * cell
        draw.text((2, top + cell // 2 - 6), str(label), fill=(INK,) * 3)
        for side, left in zip(sides, (LABEL, LABEL + widths[0] + GAP), strict=True):
            for place, image in enumerate(side[label]):
                picture.paste(_image(image, cell - 2), (left + place * cell, top))
    return picture


def _cut(batch: Batch, rows: int) -> str:
    shots, queries = (side.y.shape[1] // batch.n_way for side in (batch.support, batch.query))
    shown = f"{rows} of {batch.n_way} classes" if rows < batch.n_way else f"{batch.n_way} classes"
    return f"{shown}, support {shots} | query {queries}"


def _image(x: Tensor, size: int) -> Image.Image:
    """One image x [C, H, W] in 0..1 as RGB, `size` pixels wide."""
    pixels = (x.clamp(0, 1) * 255).round().byte().cpu().expand(3, -1, -1).permute(1, 2, 0)
    return Image.fromarray(pixels.numpy()).resize((size, size), Image.Resampling.NEAREST)
