"""Image files of any size, format and mode: decoded once, several at a time, into the cache."""

from __future__ import annotations

import hashlib
import io
import logging
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.progress import track

from metarun.data.files.cache import create_cache_file, open_or_write
from metarun.data.files.find import ImageFile
from metarun.data.images import ImageClasses

Fit = Literal["crop", "stretch"]
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
    NotImplementedError,
)
"""Errors that reading a damaged image or archive member can raise."""

Pixels = NDArray[np.uint8]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scale:
    """How an image file becomes pixels [C, H, W].

    Args:
        size: side of the square image, in pixels.
        interpolation: Pillow's filter.
        channels: 3 or 1.
        fit: what happens to an image that is not square: `crop` cuts out the middle square, `stretch` deforms it.
        invert: replace each pixel by 255 - pixel.
    Raises: ValueError for an unknown filter or fit.
    """

    size: int
    interpolation: str
    channels: int = 3
    fit: str = "stretch"
    invert: bool = False

    def __post_init__(self) -> None:
        for name, known in (("interpolation", get_args(Interpolation)), ("fit", get_args(Fit))):
            if getattr(self, name) not in known:
                raise ValueError(f"data.{name}={getattr(self, name)} is not one of {', '.join(known)}")
        if self.channels not in (1, 3):
            raise ValueError(f"data.channels={self.channels} is not one of 1, 3")


def load_images(
    cache: Path, name: str, stamp: str, files: Callable[[], Mapping[str, Sequence[ImageFile]]], scale: Scale
) -> ImageClasses:
    """Load all images, with classes in order of name, from the cache if no file has changed.

    Args:
        cache: the cache folder.
        name: a name for the images.
        stamp: a text that changes when the files do.
        files: lists the files of each class; called only if the images are not in the cache.
        scale: how a file becomes pixels.
    Raises: ValueError that names the files that cannot be read.
    """
    key = hashlib.sha256(repr((1, stamp, scale)).encode()).hexdigest()
    return open_or_write(cache.expanduser(), name, key, lambda path: _decode(path, name, files(), scale))


def decode_image(data: bytes, scale: Scale) -> Pixels:
    """Decode an image to pixels [C, size, size]: upright, transparent parts white, only the first frame of several."""
    opened = Image.open(io.BytesIO(data))
    opened.draft(None, (2 * scale.size, 2 * scale.size))  # a JPEG far larger than needed decodes faster when reduced
    image = ImageOps.exif_transpose(_to_eight_bits(opened))
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


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16- or 32-bit gray values to 8 bits; Pillow's own conversion would cut them off at 255."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image, np.float64)
    most = values.max(initial=0)
    # The value of white, which the files do not tell.
    full = 1.0 if image.mode == "F" and most <= 1 else 255.0 if most <= 255 and image.mode != "I;16" else 65535.0
    gray = Image.fromarray((values * (255 / full)).clip(0, 255).round().astype(np.uint8))
    gray.info["exif"] = image.getexif().tobytes()
    return gray


def _decode(path: Path, name: str, files: Mapping[str, Sequence[ImageFile]], scale: Scale) -> None:
    names = sorted(files)
    ordered = [file for label in names for file in files[label]]
    log.info("reading the %d images of %s, once", len(ordered), name)
    starts = np.cumsum([0, *(len(files[label]) for label in names)], dtype=np.int64)
    pixels = create_cache_file(path, names, starts, (len(ordered), scale.channels, scale.size, scale.size))

    def fill(row: int) -> str | None:
        try:
            pixels[row] = decode_image(ordered[row].read(), scale)
        except (*DECODING_ERRORS, Image.DecompressionBombError) as error:
            reason = "no image" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
            return f"{ordered[row].path} ({reason})"
        return None

    screen = Console(stderr=True)
    with ThreadPoolExecutor() as pool:
        done = track(pool.map(fill, range(len(ordered))), name, len(ordered), console=screen, transient=True,
                     disable=not screen.is_terminal)  # fmt: skip
        broken = [problem for problem in done if problem]
    if broken:
        more = f" and {len(broken) - MAX_NAMED} more" if len(broken) > MAX_NAMED else ""
        raise ValueError(
            f"{len(broken)} of the {len(ordered)} images of {name} cannot be read: "
            f"{'; '.join(broken[:MAX_NAMED])}{more}. "
            "Replace or remove them"
        )
    pixels.flush()
