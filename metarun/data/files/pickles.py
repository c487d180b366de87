"""Pickles of images and labels. None is trusted: see unpickle.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from metarun.data.files.image_file import ImageFile
from metarun.data.files.labelled import Labelled, check_pixels, find_part, name_row, read_number, take_row
from metarun.data.files.stream import Stream
from metarun.data.files.unpickle import unpickle_open

KNOWN = "neither image_data and class_dict nor data and labels, nor labels beside images"


def read_pickle(file: ImageFile, labels: ImageFile | None) -> list[Labelled]:
    """Read a pickle of `image_data` and `class_dict`, of `data` and `labels`, or of encoded images with labels beside.

    Classes are named by `class_dict` or `catname2label`, or by `label_specific_str` of the labels beside.
    Raises: ValueError if it is none of these, damaged, or asks for anything but arrays and containers.
    """
    if labels is not None:
        return _read_encoded(file, labels)
    content = _load(file)
    keys = {_text(key): key for key in content} if isinstance(content, dict) else {}
    if {"image_data", "class_dict"} <= keys.keys():
        images = np.asarray(content[keys["image_data"]])
        groups = content[keys["class_dict"]].items()
        pairs = [(read_number(label), int(row)) for label, rows in groups for row in rows]
    elif {"data", "labels"} <= keys.keys():
        images = np.asarray(content[keys["data"]])
        names = content[keys["catname2label"]] if "catname2label" in keys else {}
        name_of = {int(number): _text(label) for label, number in names.items()}
        numbers = [read_number(label) for label in np.asarray(content[keys["labels"]]).tolist()]
        pairs = [
            (name_of.get(label, label) if isinstance(label, int) else label, row) for row, label in enumerate(numbers)
        ]
    else:
        raise ValueError(f"it holds {KNOWN}: {', '.join(keys) or type(content).__name__}")
    check_pixels(images)
    part = find_part(file.path)
    return [Labelled(part, label, take_row(file.path, row, images)) for label, row in pairs]


def read_labels(file: ImageFile) -> list[str | int]:
    """Read the labels that lie in a pickle of their own: a name where names are told, else a number.

    Raises: ValueError if there are none.
    """
    content = _load(file)
    keys = {_text(key): key for key in content} if isinstance(content, dict) else {}
    found = next((keys[key] for key in ("label_specific", "labels") if key in keys), None)
    if found is None:
        raise ValueError(f"{file.path} beside it holds no labels: {', '.join(keys) or type(content).__name__}")
    names = [_text(name) for name in content[keys["label_specific_str"]]] if "label_specific_str" in keys else []
    alike = {name for name, count in Counter(names).items() if count > 1}  # as cranes are, of birds and of machines
    numbers = [read_number(label) for label in np.asarray(content[found]).tolist()]
    # Numbers may go on from another file.
    first = min((number for number in numbers if isinstance(number, int)), default=0)
    named = {first + place: f"{place:04d} {name}" if name in alike else name for place, name in enumerate(names)}
    return [number if isinstance(number, str) else named.get(number, number) for number in numbers]


def _read_encoded(file: ImageFile, labels: ImageFile) -> list[Labelled]:
    """Read images that are encoded one by one; their pickle is loaded when the first of them is decoded."""
    part, told = find_part(file.path), read_labels(labels)
    stream: Stream[bytes] = Stream(partial(_iterate_encoded, file, len(told)), len(told))
    return [
        Labelled(part, label, ImageFile(name_row(file.path, row), partial(stream.get, row), None, (file.path, row)))
        for row, label in enumerate(told)
    ]


def _iterate_encoded(file: ImageFile, size: int) -> Iterator[bytes]:
    content = _load(file)
    if isinstance(content, Mapping) or len(content) != size:
        raise ValueError(f"{file.path} holds {len(content)} things, and {size} labels lie beside it")
    for one in content:
        yield one if isinstance(one, bytes) else np.asarray(one, np.uint8).tobytes()


def _load(file: ImageFile) -> Any:
    assert file.open is not None
    with file.open() as opened:
        return unpickle_open(opened, "it")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
