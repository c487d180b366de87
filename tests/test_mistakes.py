"""Which classes are mistaken most, counted by hand."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from metarun.report.figures.hardest import CELL, LINE, MARGIN, WIDTH, draw_hardest
from metarun.report.mistakes import Hard, find_hardest

TASKS = [
    (["a", "b"], [0] * 6 + [1] * 10, [1] * 3 + [0] * 3 + [1] * 9 + [0]),  # a is taken for b 3 times, b for a once
    (["c", "a"], [1] * 6 + [0] * 10, [0] * 1 + [1] * 5 + [0] * 10),  # a is taken for c once, c never for another
    (["d", "e"], [0] * 3, [1] * 3),  # too few to tell
]


def test_the_hardest_classes_are_told_with_what_they_are_taken_for() -> None:
    """a: 12 queries, 8 right; of the 6 beside b 3 went there, of the 6 beside c 1. b: 9 of 10. c has no mistake."""
    assert find_hardest(TASKS, 5) == [
        Hard("a", 12, 8, (("b", 3, 6), ("c", 1, 6))),
        Hard("b", 10, 9, (("a", 1, 10),)),
    ]
    assert [one.name for one in find_hardest(TASKS, 1)] == ["a"]


def test_their_picture_has_a_row_each_with_the_images_of_both() -> None:
    shades = {"a": 40, "b": 120, "c": 200}
    images = {name: Image.new("RGB", (28, 28), (shade,) * 3) for name, shade in shades.items()}
    picture = Image.open(io.BytesIO(draw_hardest(find_hardest(TASKS, 5), images, 3)))
    pixels = np.asarray(picture.convert("RGB"))
    height, top = CELL + 3 * LINE + 10, MARGIN + 3 * LINE
    assert pixels.shape[0] == top + 2 * height + MARGIN
    first = [MARGIN + CELL // 2, MARGIN + WIDTH + 26 + CELL // 2, MARGIN + 2 * WIDTH + 26 + CELL // 2]
    assert [int(pixels[top + CELL // 2, x, 0]) for x in first] == [40, 120, 200]
    assert [int(pixels[top + height + CELL // 2, x, 0]) for x in first] == [120, 40, 255]  # b was taken for a alone
