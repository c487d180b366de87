"""An image with its class and its split, as files of other projects tell them."""

from __future__ import annotations

import io
import re
from functools import partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metarun.data.files.image_file import ImageFile
from metarun.data.files.split_words import PART_OF_WORD


class Labelled(NamedTuple):
    """An image of a packed file.

    Attributes:
        part: the split that the file, its folder or its array is named after; empty if it is of none.
        label: the name of its class, or its number where classes have no names.
        file: its bytes.
    """

    part: str
    label: str | int
    file: ImageFile


def find_part(path: str) -> str:
    """Return the split that a file is named after, whatever else its name says, or its folder is; empty for none."""
    for name in reversed(PurePosixPath(path).with_suffix("").parts):
        words = re.findall(r"[^\W\d_]+", name.casefold())
        if len(parts := {PART_OF_WORD[word] for word in words if word in PART_OF_WORD}) == 1:
            return parts.pop()
    return ""


def name_row(path: str, row: int) -> str:
    """Return the path of a row of a packed file."""
    return f"{path}:{row:08d}"


def read_number(value: Any) -> str | int:
    """Return a label as it stands in a file: a name or a number. Raises: ValueError for anything else."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value
    if np.ndim(value) == 0 and int(value) == value:
        return int(value)
    raise ValueError(f"its labels are {value!r:.40}, no names or whole numbers")


def write_label(label: str | int) -> str:
    """Return a label as the name of a class, in which numbers stand in order."""
    return label if isinstance(label, str) else f"{label:04d}"


def check_pixels(images: NDArray[Any]) -> None:
    """Raises: ValueError if these are no images [R, H, W], [R, H, W, 1] or [R, H, W, 3] of uint8."""
    check_form(images.shape, images.dtype, f" from {images.min():g} to {images.max():g}" if images.size else "")


def check_form(shape: tuple[int, ...], dtype: np.dtype[Any], extent: str = "") -> None:
    """Check the shape and type of an array of images, as `check_pixels` does."""
    if dtype != np.uint8 or len(shape) not in (3, 4) or shape[3:] not in ((), (1,), (3,)):
        raise ValueError(
            f"its images are {dtype} {list(shape)}{extent}: they are to be uint8 in 0..255, [R, H, W], [R, H, W, 1] or "
            "[R, H, W, 3]"
        )


def encode_row(pixels: NDArray[np.uint8], turned: bool = False) -> bytes:
    """Encode one image [H, W], [H, W, 1] or [H, W, 3] as a file; `turned` ones have blue first."""
    array = pixels[..., 0] if pixels.shape[2:] == (1,) else pixels[..., ::-1] if turned else pixels
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(file, "BMP")
    return file.getvalue()


def take_row(path: str, row: int, images: NDArray[np.uint8]) -> ImageFile:
    """Return a row of images in memory."""
    return ImageFile(name_row(path, row), partial(encode_row, images[row]))
