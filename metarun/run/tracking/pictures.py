"""A picture of image tasks, with a row for each class and its support images first."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from metarun.core.batches import MixedBatch
from metarun.core.lettering import wrap
from metarun.core.tasks import Batch, Examples

MAX_CLASSES, MAX_SUPPORT, MAX_QUERIES = 10, 5, 8
"""Most classes of a task that are drawn, and most support and query images of a class."""

CELL, GAP, MARGIN = 72, 4, 10
"""Least pixels of an image's side, between images, and around a task."""

NAME_WIDTH, LINE, SIDES_APART = 150, 17, 18
"""Pixels of a class's name, of a line of text, and between support and query images."""

Normalisation = tuple[Sequence[float], Sequence[float]]

WHITE, INK, RED = (255, 255, 255), (40, 40, 40), (200, 30, 20)


def draw_tasks(
    batch: Batch | MixedBatch,
    n_tasks: int,
    names: Sequence[Sequence[str]] = (),
    answers: Sequence[Tensor] | None = None,
    normalisation: Normalisation | None = None,
) -> Image.Image | None:
    """Draw the first tasks of a batch, one above the other; None if the inputs are not images.

    Args:
        names: the class names of each task, by label; they stand beside the labels.
        answers: the label that was answered for each query [M] of each task: wrong ones come first, framed in red,
            with the answer below.
        normalisation: mean and std of the inputs, which are undone: then images look as in their files. Without it the
            darkest value of a task is black, and the brightest white.
    """
    tasks = []
    for number in range(min(n_tasks, batch.n_tasks)):
        one = batch.tasks(number, number + 1)
        assert isinstance(one, Batch)
        if one.support.x.ndim != 5 or one.support.x.shape[2] not in (1, 3) or not one.n_way:
            return None
        if normalisation:
            one = one._replace(support=_undo(one.support, *normalisation), query=_undo(one.query, *normalisation))
        own = names[number] if number < len(names) else [""] * one.n_way
        answered = None if answers is None else answers[number].cpu()
        tasks.append(_draw_task(one, number, own, answered, bool(normalisation)))
    sheet = Image.new("RGB", (max(t.width for t in tasks), sum(t.height for t in tasks)), WHITE)
    top = 0
    for task in tasks:
        sheet.paste(task, (0, top))
        top += task.height
    return sheet


def _undo(side: Examples, mean: Sequence[float], std: Sequence[float]) -> Examples:
    shift, scale = (side.x.new_tensor(list(values))[:, None, None] for values in (mean, std))  # [C, 1, 1]
    return side._replace(x=side.x * scale + shift)


def _draw_task(one: Batch, number: int, names: Sequence[str], answered: Tensor | None, undone: bool) -> Image.Image:
    font = ImageFont.load_default(13)
    ends = one.support.x.new_tensor([0, 1]) if undone else one.support.x
    low, high = ends.min(), ends.max()
    labels = one.query.y[0].cpu()
    wrong = [] if answered is None else (answered != labels).nonzero()[:, 0].tolist()
    rows = min(one.n_way, MAX_CLASSES)
    sides = [
        [_choose(side.y[0].cpu(), label, wrong if side is one.query else [], most) for label in range(rows)]
        for side, most in ((one.support, MAX_SUPPORT), (one.query, MAX_QUERIES))
    ]
    size = max(CELL, int(one.support.x.shape[-1]))
    cell, height = size + GAP, size + GAP + (LINE if wrong else 0)
    lefts = [MARGIN + NAME_WIDTH, MARGIN + NAME_WIDTH + max(map(len, sides[0])) * cell + SIDES_APART]
    right = lefts[1] + max(map(len, sides[1])) * cell + MARGIN
    picture = Image.new("RGB", (right, MARGIN + LINE + GAP + rows * height + MARGIN), WHITE)
    draw = ImageDraw.Draw(picture)
    errors = "" if answered is None else f"; {len(wrong)} of {len(labels)} queries wrong"
    draw.text((MARGIN, MARGIN), f"task {number}: {_describe_shown(one, rows)}{errors}", fill=INK, font=font)
    for row in range(rows):
        top = MARGIN + LINE + GAP + row * height
        lines = wrap(f"{row} {names[row]}".strip(), NAME_WIDTH - 8, font, size // LINE)
        for place, line in enumerate(lines):
            y = top + size // 2 + int((place - len(lines) / 2) * LINE)
            draw.text((MARGIN, y), line, fill=INK, font=font)
        for side, chosen, left in zip((one.support, one.query), sides, lefts, strict=True):
            for place, image in enumerate(chosen[row]):
                x = left + place * cell
                pixels = (side.x[0][image] - low) / (high - low).clamp_min(1e-8)
                picture.paste(convert_image(pixels, size), (x, top))
                if side is one.query and answered is not None and image in wrong:
                    draw.rectangle((x - 2, top - 2, x + size + 1, top + size + 1), outline=RED, width=3)
                    draw.text((x, top + size + 1), f"as {int(answered[image])}", fill=RED, font=font)
    return picture


def _choose(y: Tensor, label: int, first: Sequence[int], most: int) -> list[int]:
    """Choose images of a class, those in `first` before others."""
    own: list[int] = (y == label).nonzero()[:, 0].tolist()
    return sorted(own, key=lambda image: image not in first)[:most]


def _describe_shown(batch: Batch, rows: int) -> str:
    counts = batch.support.y[0].bincount(minlength=batch.n_way).tolist()
    shots, queries = min(counts), batch.query.y.shape[1] // batch.n_way
    shown = f"{rows} of {batch.n_way} classes" if rows < batch.n_way else f"{batch.n_way} classes"
    many = f"{shots}" if shots == max(counts) else f"{shots} to {max(counts)}"
    many += f" support image{'s' * (max(counts) > 1)}"
    return f"{shown}, {many} each (left), {queries} quer{'ies' if queries > 1 else 'y'} each (right)"


def convert_image(x: Tensor, size: int) -> Image.Image:
    """Convert an image x [C, H, W] in 0..1 to RGB, `size` pixels wide."""
    pixels = (x.clamp(0, 1) * 255).round().byte().cpu().expand(3, -1, -1).permute(1, 2, 0)
    return Image.fromarray(pixels.numpy()).resize((size, size), Image.Resampling.NEAREST)
