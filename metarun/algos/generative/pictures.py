"""Pictures of what generative methods make."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

SCALE, GAP = 2, 4
"""Pixels of a picture for each pixel of an image, and white pixels between images."""


def draw_rows(rows: Tensor, given: int) -> Image.Image:
    """Draw images [rows, columns, C, H, W] in 0..1, with a wider gap behind the first `given` columns of each row."""
    images = (rows.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    images = images.repeat_interleave(SCALE, -1).repeat_interleave(SCALE, -2)
    n_rows, columns, channels, height, width = images.shape
    size = (columns * (width + GAP) + 3 * GAP, n_rows * (height + GAP) + GAP)
    sheet = Image.new("RGB", size, (255, 255, 255))
    for row in range(n_rows):
        for column in range(columns):
            place = (GAP + column * (width + GAP) + (2 * GAP if column >= given else 0), GAP + row * (height + GAP))
            one = images[row, column].expand(3, -1, -1) if channels == 1 else images[row, column]
            sheet.paste(Image.fromarray(one.permute(1, 2, 0).contiguous().numpy()), place)
    return sheet
