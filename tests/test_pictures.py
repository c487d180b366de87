from __future__ import annotations

import numpy as np
import torch

from metarun.core.tasks import Batch, Examples
from metarun.run.tracking.pictures import GAP, LABEL_WIDTH, MAX_CLASSES, TITLE_HEIGHT, draw_tasks


def tasks(n_way: int = 3, side: int = 32, channels: int = 1) -> Batch:
    """Two tasks whose class c is an even grey of c / (n_way - 1), one support and two query images each."""
    support, query = torch.arange(n_way), torch.arange(n_way).repeat_interleave(2)

    def images(y: torch.Tensor) -> Examples:
        x = (y / (n_way - 1))[None, :, None, None, None].expand(2, -1, channels, side, side)
        return Examples(x * 7 - 3, y.expand(2, -1))  # normalised in some way

    return Batch(images(support), images(query), n_way)


def test_a_row_holds_its_class_support_first() -> None:
    picture = draw_tasks(tasks(channels=3), 2)
    assert picture is not None
    pixels = np.asarray(picture)
    cell, height = 34, TITLE_HEIGHT + 3 * 34 + GAP
    assert pixels.shape == (2 * height, LABEL_WIDTH + 3 * cell + 2 * GAP, 3)
    for number in range(2):
        for label, grey in enumerate((0, 128, 255)):
            middle = pixels[number * height + TITLE_HEIGHT + label * cell + 16]
            for left in (LABEL_WIDTH, LABEL_WIDTH + cell + GAP, LABEL_WIDTH + 2 * cell + GAP):
                assert (middle[left : left + 32] == grey).all()


def test_many_classes_are_cut_to_a_sheet_that_fits() -> None:
    picture = draw_tasks(tasks(n_way=60), 1)
    assert picture is not None
    assert picture.height == TITLE_HEIGHT + MAX_CLASSES * 34 + GAP


def test_what_is_no_image_is_not_drawn() -> None:
    points = Examples(torch.zeros(2, 5, 1), torch.zeros(2, 5, 1))
    assert draw_tasks(Batch(points, points, 0), 2) is None
