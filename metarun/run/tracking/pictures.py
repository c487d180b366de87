"""A picture of image tasks, with a row for each class and its support images first."""

from __future__ import annotations

from PIL import Image, ImageDraw
from torch import Tensor

from metarun.core.tasks import Batch

MAX_CLASSES, MAX_IMAGES = 10, 5
"""Most classes of a task that are drawn, and most support or query images of a class."""

GAP, LABEL_WIDTH, TITLE_HEIGHT = 6, 22, 20
"""Pixels between support and query images, for a class's number, and for a task's title."""

BACKGROUND_GREY, TEXT_GREY = 255, 60
"""Grey values of the background and of the text."""


def draw_tasks(batch: Batch, n_tasks: int) -> Image.Image | None:
    """Draw the first tasks of a batch, one above the other; None if the inputs are not images.

    The darkest value of a task is black, the brightest white; normalisation is not undone.
    """
    if batch.support.x.ndim != 5 or batch.support.x.shape[2] not in (1, 3) or not batch.n_way:
        return None
    tasks = [_draw_task(batch, number) for number in range(min(n_tasks, batch.n_tasks))]
    sheet = Image.new("RGB", (max(t.width for t in tasks), sum(t.height for t in tasks)), (BACKGROUND_GREY,) * 3)
    top = 0
    for task in tasks:
        sheet.paste(task, (0, top))
        top += task.height
    return sheet


def _draw_task(batch: Batch, number: int) -> Image.Image:
    one = batch.tasks(number, number + 1)
    low, high = one.support.x.min(), one.support.x.max()
    sides = [
        [
            (side.x[0][side.y[0] == label][:MAX_IMAGES] - low) / (high - low).clamp_min(1e-8)
            for label in range(batch.n_way)
        ]
        for side in (one.support, one.query)
    ]
    cell = max(32, int(batch.support.x.shape[-1])) + 2
    widths = [max(len(images) for images in side) * cell for side in sides]
    rows = min(batch.n_way, MAX_CLASSES)
    picture = Image.new(
        "RGB",
        (LABEL_WIDTH + widths[0] + GAP + widths[1] + GAP, TITLE_HEIGHT + rows * cell + GAP),
        (BACKGROUND_GREY,) * 3,
    )
    draw = ImageDraw.Draw(picture)
    draw.text((2, 4), f"task {number}: {_describe_shown(batch, rows)}", fill=(TEXT_GREY,) * 3)
    for label in range(rows):
        top = TITLE_HEIGHT + label * cell
        draw.text((2, top + cell // 2 - 6), str(label), fill=(TEXT_GREY,) * 3)
        for side, left in zip(sides, (LABEL_WIDTH, LABEL_WIDTH + widths[0] + GAP), strict=True):
            for place, image in enumerate(side[label]):
                picture.paste(_convert_image(image, cell - 2), (left + place * cell, top))
    return picture


def _describe_shown(batch: Batch, rows: int) -> str:
    shots, queries = (side.y.shape[1] // batch.n_way for side in (batch.support, batch.query))
    shown = f"{rows} of {batch.n_way} classes" if rows < batch.n_way else f"{batch.n_way} classes"
    return f"{shown}, support {shots} | query {queries}"


def _convert_image(x: Tensor, size: int) -> Image.Image:
    """Convert an image x [C, H, W] in 0..1 to RGB, `size` pixels wide."""
    pixels = (x.clamp(0, 1) * 255).round().byte().cpu().expand(3, -1, -1).permute(1, 2, 0)
    return Image.fromarray(pixels.numpy()).resize((size, size), Image.Resampling.NEAREST)
