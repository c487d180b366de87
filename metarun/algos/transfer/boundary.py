"""A picture of what a classifier of points in the plane says of each place."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

SIDE = 480
"""Pixels of the picture's width; its height is in proportion."""

PLACES = (204, 224, 245), (250, 224, 204)
POINTS = (0, 90, 181), (213, 94, 0)
"""Of class 0 and class 1: what the classifier says of a place, and what a point is."""


def draw_boundary(classify: Callable[[Tensor], Tensor], sets: Sequence[tuple[Tensor, Tensor]]) -> Image.Image:
    """Draw the class of each place of the plane, and sets of points x [R, 2] with their classes y [R] in 0..1.

    The points of the first set are rings, those of the second dots.
    Args:
        classify: from points [R, 2] to logits of two classes.
    """
    every = torch.cat([x for x, _ in sets])
    low, high = every.amin(0) - 0.3, every.amax(0) + 0.3
    scale = SIDE / (high - low)[0].item()
    height = round((high - low)[1].item() * scale)
    right = low[0] + (torch.arange(SIDE, device=every.device) + 0.5) / scale
    up = high[1] - (torch.arange(height, device=every.device) + 0.5) / scale
    places = torch.stack(torch.meshgrid(up, right, indexing="ij")[::-1], -1).reshape(-1, 2).to(every.dtype)
    said = classify(places).argmax(-1).cpu().reshape(height, SIDE)
    picture = Image.fromarray(torch.tensor(PLACES, dtype=torch.uint8)[said].numpy())
    pen = ImageDraw.Draw(picture)
    for number, (x, y) in enumerate(sets):
        for (across, above), label in zip(x.tolist(), y.tolist(), strict=True):
            middle = (across - low[0].item()) * scale, (high[1].item() - above) * scale
            pen.circle(middle, 3, fill=POINTS[label] if number else None, outline=POINTS[label])
    return picture
