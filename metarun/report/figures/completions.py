"""A picture of images that a learner completed: what it was given, what it predicts, how unsure it is, the truth."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from metarun.core.tasks import Batch, Prediction

SIDE, GAP, TITLE = 112, 6, 16
"""Pixels of an image's longer side, between images, and for the words above them."""

UNKNOWN = (0.55, 0.7, 0.9)
"""Colour of pixels that nothing is said of."""

Pixels = NDArray[np.float64]


def completion_picture(batch: Batch, predicted: Prediction) -> bytes:
    """A PNG with a row for each task, whose inputs are places [-1, 1]^2 and whose outputs are 1 or 3 channels in 0..1.

    The mean is shown with the known pixels in it; the deviation is white where it is greatest in the image.
    """
    height, width = (_cells(batch, axis) for axis in (0, 1))
    titles = ["given", "mean", *([] if predicted.std is None else ["deviation"]), "truth"]
    scale = max(SIDE // max(height, width), 1)
    cell = (width * scale + GAP, height * scale + GAP)
    sheet = Image.new("RGB", (cell[0] * len(titles) + GAP, cell[1] * batch.n_tasks + TITLE + GAP), (255,) * 3)
    for column, title in enumerate(titles):
        ImageDraw.Draw(sheet).text((GAP + column * cell[0], 2), title, fill=(60,) * 3)
    for task in range(batch.n_tasks):
        given = _painted((height, width), batch.support.x[task], batch.support.y[task])
        asked = batch.query.x[task]
        row = [given, _painted(given, asked, predicted.mean[task])]
        if predicted.std is not None:
            row.append(_painted((height, width), asked, predicted.std[task] / predicted.std[task].max()))
        row.append(_painted(given, asked, batch.query.y[task]))
        for column, pixels in enumerate(row):
            image = Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))
            image = image.resize((width * scale, height * scale), Image.Resampling.NEAREST)
            sheet.paste(image, (GAP + column * cell[0], TITLE + task * cell[1]))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _cells(batch: Batch, axis: int) -> int:
    """How many pixels make the image's height (axis 0) or width (1): the least step between two is one."""
    places = np.unique(np.concatenate([side.x[..., axis].cpu().numpy().ravel() for side in batch[:2]]).round(6))
    return round(2 / float(np.diff(places).min()))


def _painted(onto: Pixels | tuple[int, int], x: Tensor, y: Tensor) -> Pixels:
    """A copy of an image [H, W, 3], or an unknown one of that size, with the colours y at the places x."""
    canvas = np.full((*onto, 3), UNKNOWN) if isinstance(onto, tuple) else onto.copy()
    size = np.array(canvas.shape[:2])
    rows, columns = ((x.cpu().numpy() + 1) / 2 * size).astype(int).T
    canvas[rows, columns] = y.cpu().numpy()
    return canvas
