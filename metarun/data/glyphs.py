from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarun.core.ranges import FilePath, PositiveInt
from metarun.core.tasks import EpisodePlan
from metarun.data.files.cache import open_or_make
from metarun.data.files.splits import find_alphabet
from metarun.data.images import ImageClasses, ImageTasks, Labels, Rotation

SIDE = 28  # pixels
MAX_STROKES = 4  # of a character
STROKE_POINTS = 40  # samples along a stroke, less than a pixel apart
DRAWING_VERSION = 1  # part of the cache's key: raise it when drawings change

Floats = NDArray[np.float64]


class Glyphs(ImageTasks):
    """Characters of invented alphabets, drawn from a seed: a few-shot problem that needs no download.

    An alphabet has seven pen strokes (Bezier curves), and each of its characters combines two to four of them, so
    characters of one alphabet look alike. A drawing moves the control points, bends the whole character (rotation,
    scale, shear, shift) and has its own pen width, so that nearest neighbours in pixels are mostly wrong. The splits
    share no alphabet; they have 64, 16 and 20 % of the alphabets.

    Args:
        plan, device: from the runner.
        cache: folder of the drawn images.
        alphabets, characters, drawings: numbers of alphabets, characters per alphabet, drawings per character.
        glyph_seed: seed of the alphabets and drawings.
        rotation, labels: see ImageTasks.
        within_alphabet: take all characters of a task from one alphabet, which is harder.
    """

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        cache: FilePath,
        alphabets: PositiveInt,
        characters: PositiveInt,
        drawings: PositiveInt,
        glyph_seed: int,
        rotation: Rotation,
        labels: Labels = "shuffled",
        within_alphabet: bool = False,
    ) -> None:
        key = f"{DRAWING_VERSION}/{alphabets}/{characters}/{drawings}/{glyph_seed}"
        data = open_or_make(
            Path(cache).expanduser(),
            "glyphs",
            hashlib.sha256(key.encode()).hexdigest(),
            lambda: draw_all(alphabets, characters, drawings, glyph_seed),
        )
        first_val, first_test = round(0.64 * alphabets), round(0.8 * alphabets)
        split: dict[str, list[str]] = {"train": [], "val": [], "test": []}
        for name in data.names:
            alphabet = int(name[8:11])
            split["train" if alphabet < first_val else "val" if alphabet < first_test else "test"].append(name)
        superclass_of = find_alphabet if within_alphabet else None
        super().__init__(data, split, plan, rotation, device, labels=labels, superclass_of=superclass_of)
        self.invented = alphabets, characters, drawings, glyph_seed

    def describe_classes(self) -> dict[str, Floats]:
        """Return the control points of each stroke of each character [MAX_STROKES, 4 * 2].

        All strokes go to the right, whichever way they are drawn.
        """
        return {
            name: _to_the_right(strokes).reshape(MAX_STROKES, -1) for name, strokes, *_ in _invent_all(*self.invented)
        }


def draw_all(alphabets: int, characters: int, drawings: int, seed: int) -> ImageClasses:
    """Draw all characters: pixels [alphabets * characters * drawings, 1, 28, 28]."""
    pixels, names = [], []
    for name, _, points, width in _invent_all(alphabets, characters, drawings, seed):
        names.append(name)
        pixels.append(_rasterise(points, width))
    starts = np.arange(len(names) + 1, dtype=np.int64) * drawings
    return ImageClasses(torch.cat(pixels)[:, None], starts, names)


def _invent_all(
    alphabets: int, characters: int, drawings: int, seed: int
) -> Iterator[tuple[str, Floats, Floats, Floats]]:
    """Yield of each character its name, its strokes, and points and pen width of its drawings."""
    rng = np.random.default_rng(seed)
    for alphabet in range(alphabets):
        for character, strokes in enumerate(_invent_alphabet(rng, characters)):
            points, width = _draw_points(rng, strokes, drawings), rng.uniform(0.5, 1.1, drawings)
            yield f"alphabet{alphabet:03d}/character{character:02d}", strokes, points, width


def _invent_alphabet(rng: np.random.Generator, characters: int) -> Iterator[Floats]:
    """Yield the cubic Bezier control points of each character, [MAX_STROKES, 4, 2] in -1..1.

    A character with fewer strokes repeats the first one.
    """
    pool = rng.uniform(-1, 1, (7, 4, 2)) * rng.uniform(0.8, 1.2, (7, 1, 1))  # the strokes of the alphabet
    straight = rng.random(7) < rng.uniform(0.2, 0.6)
    ends = pool[:, [0, 3]]
    line = ends[:, :1] + np.array([0, 1 / 3, 2 / 3, 1])[:, None] * (ends[:, 1:] - ends[:, :1])
    pool[straight] = line[straight]
    for _ in range(characters):
        used = rng.integers(2, MAX_STROKES + 1)
        strokes = pool[rng.choice(7, used, replace=False)] + rng.normal(0, 0.2, (used, 1, 2))
        yield np.concatenate([strokes, np.repeat(strokes[:1], MAX_STROKES - used, axis=0)])


def _to_the_right(strokes: Floats) -> Floats:
    backwards = strokes[:, 0, 1] > strokes[:, 3, 1]
    turned: Floats = np.where(backwards[:, None, None], strokes[:, ::-1], strokes)
    return turned


def _draw_points(rng: np.random.Generator, strokes: Floats, drawings: int) -> Floats:
    """Return points on the strokes of each drawing, in pixels: [drawings, MAX_STROKES * STROKE_POINTS, 2]."""
    control = strokes + rng.normal(0, 0.09, (drawings, *strokes.shape))  # [drawings, MAX_STROKES, 4, 2]
    angle, shear = rng.normal(0, 0.25, drawings), rng.normal(0, 0.2, drawings)
    scale = rng.uniform(0.75, 1.15, (2, drawings))
    cos, sin = np.cos(angle), np.sin(angle)
    rows = [scale[0] * cos, shear - scale[0] * sin, scale[1] * sin, scale[1] * cos]
    bend = np.stack(rows, -1).reshape(drawings, 2, 2)
    t = np.linspace(0, 1, STROKE_POINTS)[:, None]
    weights = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3]
    bernstein = np.concatenate(weights, axis=1)  # [STROKE_POINTS, 4]
    points = (bernstein @ control).reshape(drawings, -1, 2)
    points = points @ bend.transpose(0, 2, 1) + rng.normal(0, 0.17, (drawings, 1, 2))
    pixels: Floats = SIDE / 2 - 0.5 + points * (SIDE / 2 - 4)
    return pixels


def _rasterise(points: Floats, width: Floats) -> Tensor:
    """Put ink on pixels that lie within `width` [D] pixels of a point [D, P, 2]: [D, 28, 28] uint8."""
    axis = torch.arange(SIDE, dtype=torch.float32)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(1, -1, 2)
    nearest = torch.cdist(grid.expand(len(points), -1, -1), torch.from_numpy(points).float()).amin(2)  # [D, 28 28]
    ink = torch.sigmoid((torch.from_numpy(width).float()[:, None] - nearest) / 0.3)
    return (255 * ink).round().to(torch.uint8).reshape(-1, SIDE, SIDE)
