"""A picture of the hardest classes: an image of each, and of the classes that it is taken for."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from metarun.core.lettering import wrap
from metarun.report.mistakes import Hard

CELL, MARGIN, LINE, APART = 72, 14, 17, 26
"""Pixels of an image's side, around everything, of a line of text, and between columns."""

WIDTH, TAKEN = 170, 3
"""Pixels of a column, and classes that one is taken for."""

WHITE, INK, GREY, RED = (255, 255, 255), (40, 40, 40), (110, 110, 110), (200, 30, 20)


def draw_hardest(found: Sequence[Hard], images: Mapping[str, Image.Image], n_tasks: int) -> bytes:
    """Draw a PNG with a row for each class.

    Args:
        images: one of each class, by its name.
        n_tasks: the tasks that they were counted in.
    """
    font = ImageFont.load_default(13)
    height, top = CELL + 3 * LINE + 10, MARGIN + 3 * LINE
    size = (2 * MARGIN + (TAKEN + 1) * WIDTH + APART, top + len(found) * height + MARGIN)
    sheet = Image.new("RGB", size, WHITE)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), f"hardest classes of {n_tasks} test tasks", fill=INK, font=font)
    said = "taken for: wrong answers, of the queries where both were in the task"
    draw.text((MARGIN + WIDTH + APART, MARGIN + LINE), said, fill=INK, font=font)
    for row, one in enumerate(found):
        y = top + row * height
        cells = [(one.name, f"{100 * one.right / one.queries:.0f} % of {one.queries} right", INK)]
        cells += [(name, f"{n} of {of}", RED) for name, n, of in one.taken[:TAKEN]]
        for column, (name, said, ink) in enumerate(cells):
            x = MARGIN + column * WIDTH + (APART if column else 0)
            sheet.paste(images[name].resize((CELL, CELL), Image.Resampling.NEAREST), (x, y))
            lines = [*((line, GREY) for line in wrap(name, WIDTH - 8, font, 2)), (said, ink)]
            for place, (line, color) in enumerate(lines):
                draw.text((x, y + CELL + 1 + place * LINE), line, fill=color, font=font)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()
