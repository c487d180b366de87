"""Pickles of images and labels. None is trusted: see unpickle.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pickletools import genops
from typing import Any

import numpy as np

from metarun.data.files.image_file import ImageFile
from metarun.data.files.labelled import Labelled, check_pixels, find_part, name_row, read_number, take_row
from metarun.data.files.stream import Stream
from metarun.data.files.unpickle import unpickle_open

ENCODED = (b"\x89PNG", b"\xff\xd8")
"""How images begin that are encoded."""

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
    """Read images that are encoded one by one: their pickle may be larger than memory, and is read as it is decoded."""
    part, told = find_part(file.path), read_labels(labels)
    stream: Stream[bytes] = Stream(partial(_iterate_encoded, file, len(told)), len(told))
    return [
        Labelled(part, label, ImageFile(name_row(file.path, row), partial(stream.get, row), None, (file.path, row)))
        for row, label in enumerate(told)
    ]


def _iterate_encoded(file: ImageFile, size: int) -> Iterator[bytes]:
    """Yield the images in the order in which they stand in the pickle, which is not unpickled: its words are enough."""
    assert file.open is not None
    found = 0
    try:
        with file.open() as opened:
            for _, word, _ in genops(opened):
                data = word.encode("latin-1", "ignore") if isinstance(word, str) else word  # Python 2 has no bytes
                if isinstance(data, bytes | bytearray) and data.startswith(ENCODED):
                    found += 1
                    yield bytes(data)
    except ValueError as error:
        raise ValueError(f"{file.path} is no whole pickle ({error}); get it again") from error
    if found != size:
        raise ValueError(f"{file.path} holds {found} images (PNG, JPEG), and {size} labels lie beside it")


def _load(file: ImageFile) -> Any:
    assert file.open is not None
    with file.open() as opened:
        return unpickle_open(opened, "it")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
