from __future__ import annotations

import numpy as np
import torch

from metarun.core.tasks import Batch, Examples
from metarun.run.tracking.pictures import (
    CELL,
    GAP,
    LINE,
    MARGIN,
    MAX_CLASSES,
    NAME_WIDTH,
    RED,
    SIDES_APART,
    draw_tasks,
)

TOP, LEFT = MARGIN + LINE + GAP, MARGIN + NAME_WIDTH


def tasks(n_way: int = 3, side: int = CELL, channels: int = 1) -> Batch:
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
    cell, height = CELL + GAP, TOP + 3 * (CELL + GAP) + MARGIN
    assert pixels.shape == (2 * height, LEFT + cell + SIDES_APART + 2 * cell + MARGIN, 3)
    for number in range(2):
        for label, grey in enumerate((0, 128, 255)):
            middle = pixels[number * height + TOP + label * cell + CELL // 2]
            for left in (LEFT, LEFT + cell + SIDES_APART, LEFT + 2 * cell + SIDES_APART):
                assert (middle[left : left + CELL] == grey).all()


def test_small_images_are_drawn_large_and_many_classes_are_cut_to_a_sheet_that_fits() -> None:
    picture = draw_tasks(tasks(n_way=60, side=28), 1)
    assert picture is not None
    assert picture.height == TOP + MAX_CLASSES * (CELL + GAP) + MARGIN


def test_names_of_classes_are_written_beside_their_rows() -> None:
    named, plain = (draw_tasks(tasks(), 1, names) for names in ([["fox", "owl", "a very long name of a class"]], ()))
    assert named is not None
    assert plain is not None
    differ = (np.asarray(named) != np.asarray(plain)).any((1, 2))
    for label in range(3):
        top = TOP + label * (CELL + GAP)
        assert differ[top : top + CELL].any()
    assert not (np.asarray(named) != np.asarray(plain))[:, LEFT:].any()  # a long name is cut, not drawn over images


def test_wrong_answers_come_first_in_a_red_frame() -> None:
    """Of class 1's two queries, numbers 2 and 3, the second is taken for class 0; all else is right."""
    batch = tasks()
    answers = batch.query.y.clone()
    answers[0, 3] = 0
    shade = batch.query.x.clone()
    shade[0, 3] = shade.min()  # the wrong one is black, to be told from its neighbour
    picture = draw_tasks(Batch(batch.support, Examples(shade, batch.query.y), 3), 1, answers=answers)
    assert picture is not None
    pixels = np.asarray(picture)
    height, queries = CELL + GAP + LINE, LEFT + CELL + GAP + SIDES_APART
    frames = (pixels == RED).all(-1)
    for label in range(3):
        for place in range(2):
            top, left = TOP + label * height, queries + place * (CELL + GAP)
            framed = frames[top - 2, left : left + CELL].all()
            assert framed == (label == 1 and place == 0)
    middle = pixels[TOP + height + CELL // 2, queries + CELL // 2]
    assert (middle == 0).all()
    assert draw_tasks(batch, 1, answers=batch.query.y).height < picture.height  # type: ignore[union-attr]


def test_images_look_as_in_their_files_where_the_normalisation_is_known() -> None:
    """A dark green image of 40 and a less dark one: without it, they are stretched to black and white."""
    pixels = torch.zeros(1, 2, 3, 8, 8)
    pixels[:, 0, 1], pixels[:, 1, 1] = 20 / 255, 40 / 255
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
    x = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    side = Examples(x, torch.tensor([[0, 1]]))
    undone, plain = (draw_tasks(Batch(side, side, 2), 1, normalisation=one) for one in ((mean, std), None))
    assert undone is not None
    assert plain is not None
    greens = [(undone.getpixel((MARGIN + NAME_WIDTH + 5, MARGIN + LINE + GAP + row * 76 + 5))) for row in (0, 1)]
    assert greens == [(0, 20, 0), (0, 40, 0)]
    assert plain.getpixel((MARGIN + NAME_WIDTH + 5, MARGIN + LINE + GAP + 76 + 5)) != (0, 40, 0)


def test_what_is_no_image_is_not_drawn() -> None:
    points = Examples(torch.zeros(2, 5, 1), torch.zeros(2, 5, 1))
    assert draw_tasks(Batch(points, points, 0), 2) is None
