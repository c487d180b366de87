"""Arrays of images and labels in npz files, read row by row: they may be larger than memory."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from metarun.data.files.image_file import ImageFile
from metarun.data.files.labelled import Labelled, check_form, encode_row, find_part, name_row, read_number
from metarun.data.files.pickles import read_labels
from metarun.data.files.stream import Stream

IMAGES, LABELS = ("images", "data", "x"), ("labels", "label", "targets", "y")
"""What arrays are called, by themselves or after the name of a split, or before it, as x_train and y_train."""


def read_arrays(file: ImageFile, labels: ImageFile | None) -> list[Labelled]:
    """Read an npz file of `images` and `labels`, of `train_images` and `train_labels` and so on, or of images alone.

    Of images alone the labels lie in a pickle beside them, and blue is first, as MetaOptNet publishes them.
    Raises: ValueError if it is none of these, damaged, or of other numbers than uint8.
    """
    assert file.open is not None
    try:
        with file.open() as opened, zipfile.ZipFile(opened) as archive:
            arrays = {name.removesuffix(".npy"): name for name in archive.namelist()}
            pairs = [(one, other) for one in arrays if (other := _find_labels(one, list(arrays))) or _is_images(one)]
            if not pairs:
                raise ValueError(f"it holds no arrays of images and labels: {', '.join(arrays)}")
            found = []
            for images, of in pairs:
                shape, dtype = _read_head(archive, arrays[images])
                check_form(shape, dtype)
                part = find_part(images) or find_part(file.path)
                if of is None and labels is None:
                    raise ValueError(f"it holds no labels of its {images}: {', '.join(arrays)}")
                told = _load_labels(archive, arrays[of]) if of else read_labels(labels) if labels else []
                if len(told) != shape[0]:
                    raise ValueError(f"it has {shape[0]} {images} and {len(told)} labels")
                found += _list_rows(
                    file, arrays[images], images if len(pairs) > 1 else "", part, told, turned=of is None
                )
            return found
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ValueError(f"it is no whole npz file ({error}); get it again") from error


def _is_images(name: str) -> bool:
    return name.lower() in IMAGES


def _find_labels(name: str, names: list[str]) -> str | None:
    """Find the array of labels beside the array `name`, if that is one of images."""
    front, sign, back = (name if "_" in name else f"_{name}").casefold().rpartition("_")
    for word, form in ((back, f"{front}{sign}{{}}".removeprefix("_")), (front, f"{{}}{sign}{back}")):
        if word in IMAGES:
            found = {form.format(of) for of in LABELS}
            if labels := next((one for one in names if one.casefold() in found), None):
                return labels
    return None


def _read_head(archive: zipfile.ZipFile, member: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with archive.open(member) as file:
        return _read_header(file)


def _read_header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, in_columns, dtype = read(file)
    if in_columns and len(shape) > 1:
        raise ValueError("its arrays are stored by columns: save them in C order")
    return shape, dtype


def _load_labels(archive: zipfile.ZipFile, member: str) -> list[str | int]:
    with archive.open(member) as file:
        labels = npy.read_array(file, allow_pickle=False)
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels  # [R]
    if flat.ndim != 1:
        raise ValueError(f"its labels have the shape {list(labels.shape)}: one label of each image is understood")
    return [read_number(label) for label in flat.tolist()]


def _list_rows(
    file: ImageFile, member: str, name: str, part: str, labels: list[str | int], turned: bool
) -> list[Labelled]:
    stream: Stream[NDArray[np.uint8]] = Stream(partial(_iterate_rows, file, member), len(labels))
    place = f"{file.path}/{name}" if name else file.path
    return [
        Labelled(
            part, label, ImageFile(name_row(place, row), partial(_encode, stream, row, turned), None, (place, row))
        )
        for row, label in enumerate(labels)
    ]


def _encode(stream: Stream[NDArray[np.uint8]], row: int, turned: bool) -> bytes:
    return encode_row(stream.get(row), turned)


def _iterate_rows(file: ImageFile, member: str) -> Iterator[NDArray[np.uint8]]:
    assert file.open is not None
    with file.open() as opened, zipfile.ZipFile(opened) as archive, archive.open(member) as rows:
        (n, *shape), _ = _read_header(rows)
        for _row in range(n):
            yield np.frombuffer(rows.read(int(np.prod(shape))), np.uint8).reshape(shape)
