"""A picture of what a classifier answered: the support set on the left, the queries on the right, as the network
sees them, the least certain first."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from metarun.core.lettering import Font, cut
from metarun.report.predicted import Answers

CELL, GAP, MARGIN, LINE = 84, 8, 16, 15
"""Pixels of an image's side, between images, around everything, and of a line of text."""

SHOTS, COLUMNS, MOST_ROWS = 4, 6, 12
"""Most support images of a class that are drawn, columns of queries, and most rows of classes or queries."""

FONT_SIZE = 12
INK, GREY, FRAME, RED, WHITE = (30, 30, 30), (120, 120, 120), (225, 225, 225), (200, 40, 20), (255, 255, 255)

Pixels = NDArray[np.uint8]


def draw_answers(support: Pixels, labels: Sequence[int], queries: Pixels, answers: Answers) -> bytes:
    """Draw a PNG.

    Args:
        support, queries: pixels [R, C, H, W].
        labels: numbers of the support images' classes; none where classes were told without images.
        answers: those for the queries.
    """
    certainty = [probability for _, probability in answers.chosen]
    order = sorted(range(len(queries)), key=certainty.__getitem__)
    classes = len(answers.classes)
    left_rows, shown = min(classes, MOST_ROWS), order[: COLUMNS * MOST_ROWS]
    shots = max(np.bincount(labels, minlength=1))
    most = min(max(shots, 1), SHOTS)
    width = MARGIN + most * (CELL + GAP) + 3 * GAP + COLUMNS * (CELL + GAP) + MARGIN
    heights = left_rows * (CELL + LINE + GAP), -(-len(shown) // COLUMNS) * (CELL + 2 * LINE + GAP)
    top = MARGIN + 2 * LINE
    sheet = Image.new("RGB", (width, top + max(heights) + MARGIN), WHITE)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    more = f", {left_rows} of {classes} classes" if left_rows < classes else ""
    more += f", the first {SHOTS} of a class" if shots > SHOTS else ""
    draw.text((MARGIN, MARGIN), f"{'support set' if shots else 'classes'}{more}", fill=INK, font=font)
    for number in range(left_rows):
        y = top + number * (CELL + LINE + GAP)
        draw.text((MARGIN, y), cut(answers.classes[number], most * (CELL + GAP), font), fill=INK, font=font)
        rows = [row for row, own in enumerate(labels) if own == number][:most]
        for place, row in enumerate(rows):
            sheet.paste(_show(support[row]), (MARGIN + place * (CELL + GAP), y + LINE))
    x0 = MARGIN + most * (CELL + GAP) + 3 * GAP
    which = f"the {len(shown)} least certain of {len(order)} queries" if len(shown) < len(order) else "queries"
    draw.text((x0, MARGIN), f"{which}, the least certain first", fill=INK, font=font)
    for place, row in enumerate(shown):
        x, y = x0 + place % COLUMNS * (CELL + GAP), top + place // COLUMNS * (CELL + 2 * LINE + GAP)
        (answer, probability), label = answers.chosen[row], answers.truth[row]
        missed = label not in (None, answer)
        sheet.paste(_show(queries[row]), (x, y))
        if missed:
            draw.rectangle((x - 2, y - 2, x + CELL + 1, y + CELL + 1), outline=RED, width=2)
        _write(draw, (x, y + CELL + 1), f"{100 * probability:.0f} % ", answer, RED if missed else INK, font)
        if missed:
            _write(draw, (x, y + CELL + LINE), "is ", str(label), GREY, font)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _show(pixels: Pixels) -> Image.Image:
    """An image from pixels [1 or 3, H, W], CELL pixels wide."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    small = max(image.size) <= CELL
    shown = image.convert("RGB").resize((CELL, CELL), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)
    ImageDraw.Draw(shown).rectangle((0, 0, CELL - 1, CELL - 1), outline=FRAME)
    return shown


def _write(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], before: str, name: str, fill: tuple[int, int, int], font: Font
) -> None:
    """Write under an image; the name is cut to what its width leaves."""
    draw.text(at, before + cut(name, CELL + GAP - 4 - font.getlength(before), font), fill=fill, font=font)
