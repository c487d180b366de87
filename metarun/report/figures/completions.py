"""A picture of completed images: the given pixels, the predicted mean, its standard deviation, and the truth."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from metarun.core.tasks import Batch, Prediction

IMAGE_SIDE, GAP, TITLE_HEIGHT = 112, 6, 16
"""Pixels of an image's longer side, of the gap between images, and of the titles above them."""

UNKNOWN_COLOUR = (0.55, 0.7, 0.9)
"""Colour of pixels that are not given."""

Pixels = NDArray[np.float64]


def draw_completions(batch: Batch, predicted: Prediction) -> bytes:
    """Draw a PNG with a row for each task.

    Inputs are places in [-1, 1]^2, outputs are 1 or 3 channels in 0..1. The mean includes the given pixels. The largest
    deviation of each image is white.
    """
    height, width = (_count_pixels(batch, axis) for axis in (0, 1))
    titles = ["given", "mean", *([] if predicted.std is None else ["deviation"]), "truth"]
    scale = max(IMAGE_SIDE // max(height, width), 1)
    cell = (width * scale + GAP, height * scale + GAP)
    sheet = Image.new("RGB", (cell[0] * len(titles) + GAP, cell[1] * batch.n_tasks + TITLE_HEIGHT + GAP), (255,) * 3)
    for column, title in enumerate(titles):
        ImageDraw.Draw(sheet).text((GAP + column * cell[0], 2), title, fill=(60,) * 3)
    for task in range(batch.n_tasks):
        given = _paint((height, width), batch.support.x[task], batch.support.y[task])
        asked = batch.query.x[task]
        row = [given, _paint(given, asked, predicted.mean[task])]
        if predicted.std is not None:
            row.append(_paint((height, width), asked, predicted.std[task] / predicted.std[task].max()))
        row.append(_paint(given, asked, batch.query.y[task]))
        for column, pixels in enumerate(row):
            image = Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))
            image = image.resize((width * scale, height * scale), Image.Resampling.NEAREST)
            sheet.paste(image, (GAP + column * cell[0], TITLE_HEIGHT + task * cell[1]))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _count_pixels(batch: Batch, axis: int) -> int:
    """Count the pixels of the image's height (axis 0) or width (axis 1): the least step between two places is one."""
    places = np.unique(np.concatenate([side.x[..., axis].cpu().numpy().ravel() for side in batch[:2]]).round(6))
    return round(2 / float(np.diff(places).min()))


def _paint(onto: Pixels | tuple[int, int], x: Tensor, y: Tensor) -> Pixels:
    """Paint the colours y at the places x onto a copy of an image [H, W, 3], or onto an unknown image of that size."""
    canvas = np.full((*onto, 3), UNKNOWN_COLOUR) if isinstance(onto, tuple) else onto.copy()
    size = np.array(canvas.shape[:2])
    rows, columns = ((x.cpu().numpy() + 1) / 2 * size).astype(int).T
    canvas[rows, columns] = y.cpu().numpy()
    return canvas
