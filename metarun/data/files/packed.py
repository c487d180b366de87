"""Packed files, of many images each with their labels: pickles, arrays and parquet files, as projects publish them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from metarun.data.files.arrays import read_arrays
from metarun.data.files.image_file import ImageFile, is_packed
from metarun.data.files.labelled import Labelled
from metarun.data.files.parquet import read_parquet
from metarun.data.files.pickles import read_pickle

TESTS_OF_TRAINING = re.compile(r"train_phase_(val|test)")
"""MetaOptNet's files of other images of the training classes, which nobody trains on."""

BESIDE = re.compile(r"(.*?)_?labels?$")
"""The name of a file of labels that lies beside one of images: train_labels beside train_images_png."""

UNDERSTOOD = (
    "pickles of image_data and class_dict, of data and labels, or of {train,val,test}_images_png and _labels; npz of "
    "images and labels, of {train,val,test}_images and _labels, or of images beside a pickle of labels; parquet files "
    "with a column image or img and a column label or fine_label"
)
"""The packed files that are read, in words."""


class Packed(NamedTuple):
    """What packed files hold: images with their labels, the files that were read, and why others were not, by name."""

    images: list[Labelled]
    read: list[str]
    left_out: dict[str, str]


def read_packed(files: Sequence[ImageFile]) -> Packed:
    """Read the labels of the packed files among `files`; their images are read when they are decoded.

    A pickle that holds both is in memory from then on. A file that is damaged, or none that is understood, is left out
    with the reason.
    """
    found = Packed([], [], {})
    files = [file for file in files if is_packed(file.path)]
    labels = {match[1]: file for file in files if (match := BESIDE.fullmatch(_stem(file.path)))}
    beside: dict[str, str] = {}
    for file in files:
        stem = _stem(file.path)
        partner = next((labels[stem[:end]] for end in range(len(stem), 0, -1) if stem[:end] in labels), None)
        partner = None if partner is file else partner
        try:
            if TESTS_OF_TRAINING.search(stem):
                raise ValueError("it holds other images of the training classes, for tests on those")
            items = READERS[PurePosixPath(file.path).suffix.lower()](file, partner)
        except ValueError as error:
            found.left_out[file.path] = str(error)
            continue
        if partner and items:
            beside[partner.path] = file.path
        found.images.extend(items)
        found.read.append(file.path)
    for path in beside:
        found.left_out.pop(path, None)
    return found


def describe_left_out(left_out: Mapping[str, str]) -> str:
    """Say of the first packed files why they are not read."""
    return "; ".join(
        f"{path} {reason[3:]}" if reason.startswith("it ") else f"{path}: {reason}"
        for path, reason in list(left_out.items())[:5]
    )


def _stem(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


def _read_parquet(file: ImageFile, _: ImageFile | None) -> list[Labelled]:
    return list(read_parquet(file))


READERS: dict[str, Callable[[ImageFile, ImageFile | None], Sequence[Labelled]]] = {
    ".pkl": read_pickle,
    ".pickle": read_pickle,
    ".npz": read_arrays,
    ".parquet": _read_parquet,
}
"""Readers by the ending of a file's name: of the file, and of one of labels beside it."""
