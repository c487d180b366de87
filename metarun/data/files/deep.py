"""Gray images of more than 8 bits. Their files do not tell the value of white: one range holds for a data set."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BITS = (8, 10, 12, 14, 16)
"""Of cameras and scanners."""


class Limits(NamedTuple):
    """The least and the greatest value of images, and whether they are fractions."""

    low: float
    high: float
    fractions: bool


def is_deep(image: Image.Image) -> bool:
    """Return whether an image is gray of more than 8 bits; it need not be decoded yet."""
    return image.mode.startswith(("I", "F"))


def is_deep_colour(image: Image.Image) -> bool:
    """Return whether Pillow drops the lower 8 bits of 16 as it decodes a colour image."""
    return not is_deep(image) and ";16" in repr(getattr(image, "tile", ""))


def has_holes(image: Image.Image) -> bool:
    """Return whether pixels of an image of fractions are no numbers; black is made of them."""
    return image.mode.startswith("F") and bool(np.isnan(_read_values(image)).any())


def find_limits(image: Image.Image) -> Limits:
    """Return the limits of one deep image; those of a PGM file stand in the file."""
    if image.format == "PPM":
        return Limits(0, 65535, False)  # Pillow scales to that
    values = _read_values(image)
    finite = values[np.isfinite(values)]
    return Limits(finite.min(initial=np.inf), finite.max(initial=-np.inf), image.mode.startswith("F"))


def guess_range(found: Collection[Limits]) -> tuple[float, float]:
    """Guess the values of black and white from the limits of all deep images of a data set.

    Whole numbers are taken to have as few bits as hold them, of those that are usual: a camera's 12 bits in a 16-bit
    file are 0..4095. Fractions up to 1 are 0..1, if they use a quarter of that. Numbers below 0 or of more than 16 bits
    are taken as they are.
    """
    low, high = min(one.low for one in found), max(one.high for one in found)
    if not np.isfinite(high):  # no image has a number
        return 0.0, 255.0
    if low < 0 or high > 2 ** BITS[-1] - 1:
        return min(low, 0.0), max(high, low + 1)
    if high <= 1 and any(one.fractions for one in found):
        return 0.0, 1.0 if high > 0.25 else high or 1.0
    return 0.0, next(2.0**bits - 1 for bits in BITS if high <= 2**bits - 1)


def scale_to_eight_bits(image: Image.Image, low: float, high: float) -> Image.Image:
    """Map the values of a deep image from low..high to 0..255; Pillow's own conversion would cut them off at 255."""
    values = np.nan_to_num(_read_values(image), nan=low, posinf=high, neginf=low)
    gray = Image.fromarray(((values - low) * (255 / (high - low))).clip(0, 255).round().astype(np.uint8))
    gray.info["exif"] = image.getexif().tobytes()
    return gray


def _read_values(image: Image.Image) -> NDArray[np.float64]:
    return np.asarray(image, np.float64)
