"""Image files of any size, format and mode, decoded several at a time."""

from __future__ import annotations

import hashlib
import io
import logging
import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from metarun.core.ranges import check_choice
from metarun.core.screen import track
from metarun.data.files.deep import (
    Limits,
    find_limits,
    guess_range,
    has_holes,
    is_deep,
    is_deep_colour,
    scale_to_eight_bits,
)
from metarun.data.files.image_file import ImageFile

Fit = Literal["crop", "stretch"]
Channels = Literal[1, 3]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
FILTERS = {f.name.lower(): f for f in Image.Resampling}
"""Pillow's filters by the names of `Interpolation`."""

MAX_NAMED = 20
"""Unreadable files that a message names; it counts all of them."""

DECODING_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    lzma.LZMAError,
    RuntimeError,
)
"""Errors that reading a damaged image, or a damaged or encrypted member of an archive, can raise."""

log = logging.getLogger(__name__)

MANY_PAGES = ("TIFF", "GIF", "PNG", "WEBP")
"""Formats whose further pages or frames people count as images of their own."""

POINTERS = {
    b"version https://git-lfs": "in Git LFS: git lfs pull",
    b"/annex/objects/": "in git-annex: git annex get",
}
"""How small files begin that stand for an image which is elsewhere, and how to get it."""

Pixels = NDArray[np.uint8]
Range = tuple[float, float]
"""Values of black and white in gray images of more than 8 bits."""


class OpenImage(NamedTuple):
    """An image that Pillow has opened already, and what messages call it."""

    path: str
    image: Image.Image


@dataclass(frozen=True)
class Scale:
    """How an image file becomes pixels [C, H, W].

    Args:
        size: side of the square image, in pixels.
        interpolation: Pillow's filter.
        channels: 3 or 1.
        fit: what happens to an image that is not square: `crop` cuts out the middle square, `stretch` deforms it.
        invert: replace each pixel by 255 - pixel.
        range: values of black and white in gray images of more than 8 bits; None guesses them from all images.
    Raises: ValueError for an unknown filter or fit, or a range that is none.
    """

    size: int
    interpolation: Interpolation
    channels: Channels = 3
    fit: Fit = "stretch"
    invert: bool = False
    range: Range | None = None

    def __post_init__(self) -> None:
        check_choice("data.interpolation", self.interpolation, Interpolation)
        check_choice("data.fit", self.fit, Fit)
        check_choice("data.channels", self.channels, Channels)
        if self.range is not None and not (all(map(math.isfinite, self.range)) and self.range[0] < self.range[1]):
            raise ValueError(f"data.range={list(self.range)} must be the values of black and white, as [0,4095]")


def decode_image(data: bytes, scale: Scale) -> Pixels:
    """Decode an image to pixels [C, size, size]: upright, transparent parts white, only the first frame of several."""
    return _make_pixels(_open(data, scale), scale)


def _open(data: bytes, scale: Scale) -> Image.Image:
    opened = Image.open(io.BytesIO(data))
    opened.draft(None, (2 * scale.size, 2 * scale.size))  # a JPEG far larger than needed decodes faster when reduced
    return opened


def _make_pixels(opened: Image.Image, scale: Scale) -> Pixels:
    if is_deep(opened):
        opened = scale_to_eight_bits(opened, *(scale.range or guess_range([find_limits(opened)])))
    image = ImageOps.exif_transpose(opened)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB" if scale.channels == 3 else "L")
    side = (scale.size, scale.size)
    if scale.fit == "crop":
        image = ImageOps.fit(image, side, FILTERS[scale.interpolation])
    elif image.size != side:
        image = image.resize(side, FILTERS[scale.interpolation])
    array = np.asarray(ImageOps.invert(image) if scale.invert else image)
    return array[None] if scale.channels == 1 else array.transpose(2, 0, 1)


def encode_bitmap(pixels: Pixels) -> bytes:
    """Encode pixels [H, W, 3] as an image file, for data sets that come as arrays."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "BMP")
    return file.getvalue()


def read_pixels(files: Sequence[ImageFile | OpenImage], scale: Scale, name: str) -> tuple[Pixels, Range | None]:
    """Decode images into memory: pixels [R, C, size, size], and the range of those of more than 8 bits, if any.

    Args:
        name: what messages call the images.
    Raises: ValueError that names the images that cannot be read.
    """
    pixels = np.empty((len(files), scale.channels, scale.size, scale.size), np.uint8)
    return pixels, fill(pixels, files, scale, name)


def fill(
    pixels: Pixels,
    ordered: Sequence[ImageFile | OpenImage],
    scale: Scale,
    name: str,
    digests: list[bytes] | None = None,
) -> Range | None:
    """Decode images into `pixels`; return the range of those that are gray of more than 8 bits, if there are any.

    Args:
        digests: gets a hash of the content of each image, if it is a list of as many places.
    """
    deep: dict[int, Limits] = {}
    deep_colours: list[int] = []
    several: list[int] = []
    holes: set[int] = set()
    has_deep: list[bool] = []

    def fill_row(row: int, scale: Scale) -> str | None:
        data = b""
        try:
            source = ordered[row]
            image = source.image if isinstance(source, OpenImage) else _open(data := source.read(), scale)
            if digests is not None:
                digests[row] = hashlib.blake2b(data, digest_size=16).digest()
            if is_deep_colour(image):
                deep_colours.append(row)
            if image.format in MANY_PAGES and getattr(image, "n_frames", 1) > 1:
                several.append(row)
                image.seek(0)
            has_deep.append(is_deep(image))
            if has_holes(image):
                holes.add(row)
            if is_deep(image) and scale.range is None:
                deep[row] = find_limits(image)  # pixels when the limits of all are known
            else:
                pixels[row] = _make_pixels(image, scale)
        except (*DECODING_ERRORS, Image.DecompressionBombError) as error:
            return f"{ordered[row].path} ({_explain(error, data)})"
        return None

    rows = sorted(range(len(ordered)), key=lambda row: getattr(ordered[row], "order", ("", 0)))
    broken = _fill_all(partial(fill_row, scale=scale), rows, name)
    if deep and not broken:
        low, high = min(one.low for one in deep.values()), max(one.high for one in deep.values())
        black, white = guess_range(deep.values())
        log.warning(
            "%d of the %d images of %s are gray of more than 8 bits, from %g to %g; black is taken to be %g, white %g. "
            "If they are others, set data.range=[BLACK,WHITE] (of data=folder)",
            *(len(deep), len(ordered), name, low, high, black, white),
        )
        scale = replace(scale, range=(black, white))
        broken = _fill_all(partial(fill_row, scale=scale), [row for row in rows if row in deep], name)
    if broken:
        more = f" and {len(broken) - MAX_NAMED} more" if len(broken) > MAX_NAMED else ""
        raise ValueError(
            f"{len(broken)} of the {len(ordered)} images of {name} cannot be read: "
            f"{'; '.join(broken[:MAX_NAMED])}{more}. "
            "Replace or remove them"
        )
    if several:
        log.warning(
            "%d of the %d images of %s have several pages or frames, of which the first is used, %s among them",
            *(len(several), len(ordered), name, ordered[min(several)].path),
        )
    if holes:
        log.warning(
            "%d of the %d images of %s have pixels that are no numbers, of which black is made, %s among them",
            *(len(holes), len(ordered), name, ordered[min(holes)].path),
        )
    if deep_colours:
        log.warning(
            "%d of the images of %s have colours of 16 bits, of which the upper 8 are used", len(deep_colours), name
        )
    return scale.range if any(has_deep) else None


def _fill_all(fill_row: Callable[[int], str | None], rows: Sequence[int], name: str) -> list[str]:
    """Fill rows of pixels, several at a time, and return what keeps images from being read."""
    with ThreadPoolExecutor() as pool:
        return [problem for problem in track(pool.map(fill_row, rows), name, len(rows)) if problem]


def _explain(error: Exception, data: bytes) -> str:
    """Say why `data` is not the content of an image."""
    if not isinstance(error, UnidentifiedImageError):
        return str(error) or type(error).__name__
    return next((f"is {where}" for start, where in POINTERS.items() if data.startswith(start)), "no image")
