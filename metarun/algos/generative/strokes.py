"""Strokes of a drawn character: thin its ink to lines of one pixel, and follow these as a pen may have gone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

INK = 0.5
"""Pixels above this are ink."""

SHARPEST_TURN = -0.3
"""Cosine of the sharpest turn that a pen makes without being lifted, over the last and next pixels."""

STRAIGHT_ON = 0.85
"""The same for going on behind a crossing."""

LEAST_PIXELS = 3
"""Strokes of fewer pixels are left out, if there is another one."""


def find_strokes(image: NDArray[np.floating], most: int) -> list[Floats]:
    """Return the strokes of an image [H, W] in 0..1, the longest first and `most` at most, each as pixels [P, 2].

    Coordinates are x and y in -1..1. An image without ink has one stroke of a point in its middle.
    """
    ink = np.ascontiguousarray(image > INK)
    return [np.frombuffer(stroke).reshape(-1, 2) for stroke in _find_strokes(ink.tobytes(), ink.shape, most)]


def thin(ink: Mask) -> Mask:
    """Thin ink [H, W] to lines of one pixel that hang together as it did.

    Reference: Guo, Hall. Parallel thinning with two-subiteration algorithms. CACM 1989, algorithm A1.
    """
    while True:
        before = ink.sum()
        for first in (True, False):
            p = _list_neighbours(ink)  # north, then clockwise
            branches = np.sum([~p[i] & (p[i + 1] | p[(i + 2) % 8]) for i in (0, 2, 4, 6)], axis=0)
            one, other = (np.sum([p[i - 1 + odd] | p[(i + odd) % 8] for i in (0, 2, 4, 6)], axis=0) for odd in (0, 1))
            count = np.minimum(one, other)
            kept = (p[4] | p[5] | ~p[7]) & p[6] if first else (p[0] | p[1] | ~p[3]) & p[2]
            ink = ink & ~((branches == 1) & (count >= 2) & (count <= 3) & ~kept)
        if ink.sum() == before:
            return ink


def trace(line: Mask) -> list[list[tuple[int, int]]]:
    """Follow lines of one pixel [H, W]: strokes as rows and columns of pixels, each pixel in one of them.

    A pen starts at an end where there is one, goes straight on at crossings as far as it can, and is lifted rather than
    turned sharply.
    """
    left = {(int(row), int(column)) for row, column in np.argwhere(line)}
    strokes = []
    while left:
        start = min(left, key=lambda pixel: (len(_near(pixel, left)) != 1, pixel))
        left.remove(start)
        stroke = [start]
        while found := _choose_next(stroke, left):
            left.remove(found)
            stroke.append(found)
        strokes.append(stroke)
    return strokes


def resample(stroke: Floats, n: int) -> Floats:
    """Return n points at equal distances along a stroke [P, 2]: [n, 2]."""
    if len(stroke) == 1:
        return np.repeat(stroke, n, axis=0)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(stroke, axis=0), axis=1))])
    places = np.linspace(0, length[-1], n)
    return np.stack([np.interp(places, length, stroke[:, axis]) for axis in (0, 1)], 1)


def measure_length(stroke: Floats) -> float:
    return float(np.linalg.norm(np.diff(stroke, axis=0), axis=1).sum())


def to_plane(pixels: Floats, shape: tuple[int, ...]) -> Floats:
    """Turn rows and columns [P, 2] of an image of `shape` H, W into x and y in -1..1."""
    height, width = shape
    return np.stack([(pixels[:, 1] + 0.5) / width, (pixels[:, 0] + 0.5) / height], 1) * 2 - 1


@lru_cache(maxsize=65_536)
def _find_strokes(ink: bytes, shape: tuple[int, ...], most: int) -> tuple[bytes, ...]:
    line = thin(np.frombuffer(ink, np.bool_).reshape(shape))
    strokes = sorted((to_plane(np.array(s, float), shape) for s in trace(line)), key=measure_length, reverse=True)
    kept = [stroke for stroke in strokes if len(stroke) >= LEAST_PIXELS] or strokes[:1] or [np.zeros((1, 2))]
    return tuple(stroke.tobytes() for stroke in kept[:most])


def _list_neighbours(ink: Mask) -> list[Mask]:
    around = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
    padded = np.pad(ink, 1)
    rows, columns = ink.shape
    return [padded[1 + y : 1 + y + rows, 1 + x : 1 + x + columns] for y, x in around]


def _near(pixel: tuple[int, int], left: set[tuple[int, int]], reach: int = 1) -> list[tuple[int, int]]:
    row, column = pixel
    span = range(-reach, reach + 1)
    around = [(row + y, column + x) for y in span for x in span if y or x]
    return [each for each in around if each in left]


def _choose_next(stroke: list[tuple[int, int]], left: set[tuple[int, int]]) -> tuple[int, int] | None:
    """Choose the next pixel of a stroke: the one most straight on, also over a pixel that another stroke has taken.

    Returns: None if there is none, or the turn would be too sharp.
    """
    here, before = np.array(stroke[-1]), np.array(stroke[max(len(stroke) - 4, 0)])
    if len(stroke) == 1:
        found = _near(stroke[-1], left)
        return min(found, key=lambda pixel: abs(pixel[0] - here[0]) + abs(pixel[1] - here[1]), default=None)

    def straightness(pixel: tuple[int, int]) -> float:
        ahead, behind = np.array(pixel) - here, here - before
        return float(ahead @ behind / (np.linalg.norm(ahead) * np.linalg.norm(behind)))

    for reach, least in ((1, SHARPEST_TURN), (2, STRAIGHT_ON)):
        best = max(_near(stroke[-1], left, reach), key=straightness, default=None)
        if best is not None and straightness(best) > least:
            return best
    return None
