from __future__ import annotations

import numpy as np
import torch

from metarun.core.tasks import Batch, Examples
from metarun.run.tracking.pictures import CLASSES, GAP, LABEL, TITLE, episode_picture


def tasks(n_way: int = 3, side: int = 32, channels: int = 1) -> Batch:
    """Two tasks whose class c is an even grey of c / (n_way - 1), one support and two query images each."""
    support, query = torch.arange(n_way), torch.arange(n_way).repeat_interleave(2)

    def images(y: torch.Tensor) -> Examples:
        x = (y / (n_way - 1))[None, :, None, None, None].expand(2, -1, channels, side, side)
        return Examples(x * 7 - 3, y.expand(2, -1))  # normalised in some way

    return Batch(images(support), images(query), n_way)


def test_a_row_holds_its_class_support_first() -> None:
    picture = episode_picture(tasks(channels=3), 2)
    assert picture is not None
    pixels = np.asarray(picture)
    cell, height = 34, TITLE + 3 * 34 + GAP
    assert pixels.shape == (2 * height, LABEL + 3 * cell + 2 * GAP, 3)
    for number in range(2):
        for label, grey in enumerate((0, 128, 255)):
            middle = pixels[number * height + TITLE + label * cell + 16]
            for left in (LABEL, LABEL + cell + GAP, LABEL + 2 * cell + GAP):
                assert (middle[left : left + 32] == grey).all()


def test_many_classes_are_cut_to_a_sheet_that_fits() -> None:
    picture = episode_picture(tasks(n_way=60), 1)
    assert picture is not None
    assert picture.height == TITLE + CLASSES * 34 + GAP


def test_what_is_no_image_is_not_drawn() -> None:
    points = Examples(torch.zeros(2, 5, 1), torch.zeros(2, 5, 1))
    assert episode_picture(Batch(points, points, 0), 2) is None
