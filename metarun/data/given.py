"""Images that somebody hands to a trained network: files, folders and zip files, Pillow images, arrays, tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from metarun.data.files.archives import is_archive
from metarun.data.files.decode import OpenImage, Scale
from metarun.data.files.find import list_images, read_file
from metarun.data.files.image_file import ImageFile

Given = ImageFile | OpenImage

DEFAULT: Mapping[str, Any] = {"interpolation": "bicubic", "fit": "crop"}
"""How images are scaled for a network whose own source has no files of images."""


def find_scale(data: Mapping[str, Any], shape: Sequence[int]) -> Scale:
    """Return how the source of the settings `data` turns files into pixels of `shape` C, H, W.

    Raises: ValueError if these are not square images of one or three channels.
    """
    if len(shape) != 3 or shape[1] != shape[2]:
        raise ValueError(f"the run's inputs have the shape {tuple(shape)}: they are no square images")
    own = data if "interpolation" in data else DEFAULT
    known: dict[str, Any] = {key: own[key] for key in ("interpolation", "fit", "invert") if key in own}
    known["channels"], limits = int(shape[0]), data.get("range")
    return Scale(int(shape[-1]), range=tuple(limits) if limits else None, **known)


def list_given(places: Sequence[Path]) -> list[ImageFile]:
    """List the images that files, folders and zip files hold, by paths with the folder's or zip file's own.

    Raises: ValueError if one of the places is not there, or holds no images.
    """
    found: list[ImageFile] = []
    for place in places:
        if place.is_file() and not is_archive(place.name) and not is_zipfile(place):
            inside = [ImageFile(str(place), partial(read_file, str(place)))]  # whatever its ending
        elif not place.exists():
            raise ValueError(f"there is no file or folder {place}")
        else:
            inside = [ImageFile(f"{place}/{file.path}", file.read) for file in list_images(place)]
        if not inside:
            raise ValueError(f"there are no images in {place}")
        found += inside
    return found


def take_images(given: Any) -> list[Given]:
    """Take a path, or images: paths, Pillow images, arrays [H, W] or [H, W, C], tensors [H, W] or [C, H, W].

    Numbers are uint8 in 0..255, or fractions in 0..1; arrays may be uint16.
    Raises: ValueError for anything else, with its place in the list.
    """
    if isinstance(given, str | Path):
        return [*list_given([Path(given)])]
    if isinstance(given, Image.Image) or not isinstance(given, Iterable):
        raise ValueError(f"images are a path or a list of images; this is one {type(given).__name__}: put it in a list")
    found: list[Given] = []
    for place, one in enumerate(given):
        if isinstance(one, str | Path):
            found += list_given([Path(one)])
        else:
            known = isinstance(one, ImageFile | OpenImage)
            found.append(one if known else OpenImage(f"image number {place}", _open(one, place)))
    if not found:
        raise ValueError("there are no images in the list")
    return found


def _open(one: Any, place: int) -> Image.Image:
    if isinstance(one, Image.Image):
        return one
    if isinstance(one, Tensor):
        one = one.detach().cpu().numpy()
        one = one.transpose(1, 2, 0) if one.ndim == 3 else one  # [H, W, C]
    if not isinstance(one, np.ndarray):
        raise ValueError(f"image number {place} is a {type(one).__name__}: give a path, Pillow image, array or tensor")
    channels = one.shape[2] if one.ndim == 3 else 1
    if one.ndim not in (2, 3) or channels not in (1, 3, 4) or not one.size:
        raise ValueError(
            f"image number {place} has the shape {one.shape}: arrays are [H, W] or [H, W, C], tensors [H, W] or "
            "[C, H, W], with 1, 3 or 4 channels"
        )
    return Image.fromarray(_make_whole(one[..., 0] if one.ndim == 3 and channels == 1 else one, place))


def _make_whole(values: NDArray[Any], place: int) -> NDArray[Any]:
    """Return whole numbers of 8 bits, or of 16 where they are gray. Raises: ValueError for numbers that are neither."""
    if values.dtype == np.uint8 or (values.dtype == np.uint16 and values.ndim == 2):
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * 255
    if not np.issubdtype(values.dtype, np.floating) or not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(
            f"image number {place} has {values.dtype} numbers from {values.min():g} to {values.max():g}: give pixels "
            "as uint8, or as fractions in 0..1, before any normalisation"
        )
    return (values * 255).round().astype(np.uint8)
