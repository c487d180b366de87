"""Images of ImageNet classes, in the forms in which few-shot sets of them are passed around."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from metarun.data.files.decode import Scale, bitmap, decoded
from metarun.data.files.find import ImageFile, image_files, places, stamp
from metarun.data.files.unpickle import unpickle
from metarun.data.images import ImageClasses

WNID = re.compile(r"(?:^|/)(n\d{8})")
"""A class, as a folder or at the beginning of a file's name."""

Labelled = Iterator[tuple[str, ImageFile]]


def imagenet(root: Path, cache: Path, name: str, split: Mapping[str, list[str]], scale: Scale) -> ImageClasses:
    """The images of the set `name` that belong to the classes of `split`, WordNet ids, in the order of their names.

    Looked for as NAME.zip in `root`, or in the folder NAME there: as zip files; or as pickles, of `image_data` and
    `class_dict` or of `data`, `labels` and `catname2label`; or as parquet files, of the columns `image` and `label`; or
    as images in folders named after their class or with its id before their own name.

    Raises: ValueError if there is none, or one cannot be read.
    """
    wanted = {label for labels in split.values() for label in labels}
    found = files_of(root, name)
    if not found:
        raise ValueError(
            f"no {name} in {root}, and it may not be downloaded freely. Put its images into {root / name}, in folders "
            "named after their classes (n01532829 ...), or as zip, pickle or parquet files, or set paths.data=FOLDER "
            "(or METARUN_DATA)"
        )

    def files() -> Mapping[str, list[ImageFile]]:
        classes: dict[str, list[ImageFile]] = defaultdict(list)
        for path in found:
            for label, file in READERS.get(path.suffix, _in_tree)(path):
                if label in wanted:
                    classes[label].append(file)
        return {label: sorted(files, key=lambda file: file.path.split("/")[-1]) for label, files in classes.items()}

    return decoded(cache, name, stamp(found), files, scale)


def files_of(root: Path, name: str) -> list[Path]:
    """The files, or the folder, that the set `name` would be read from."""
    root = root.expanduser()
    return sorted(path for path in (root / name).rglob("*") if path.suffix in READERS) or places(root, name)


def _in_tree(place: Path) -> Labelled:
    for file in image_files(place):
        label = WNID.findall(file.path)
        if not label:
            raise ValueError(
                f"{file.path} of {place} has no class: neither its folder nor its name begins as n01532829"
            )
        yield label[-1], file


def _pickled(path: Path) -> Labelled:
    content = unpickle(path)
    if isinstance(content, dict) and {"image_data", "class_dict"} <= content.keys():
        rows = {label: list(rows) for label, rows in content["class_dict"].items()}
        images = content["image_data"]
    elif isinstance(content, dict) and {"data", "labels", "catname2label"} <= content.keys():
        labels, images = np.asarray(content["labels"]), content["data"]
        rows = {label: np.flatnonzero(labels == number).tolist() for label, number in content["catname2label"].items()}
    else:
        keys = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path} holds neither image_data and class_dict nor data, labels and catname2label: {keys}")
    for label, numbers in rows.items():
        for row in numbers:
            yield label, ImageFile(f"{path.name}:{row:06d}", partial(bitmap, images[row]))


def _in_parquet(path: Path) -> Labelled:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(f"reading {path} needs pyarrow: pip install pyarrow") from error
    table = parquet.read_table(path, columns=["image", "label"])
    names = _label_names(table.schema.metadata or {})
    for row, (image, label) in enumerate(zip(table["image"], table["label"], strict=True)):
        value: Any = label.as_py()
        wnid = names[value] if names else str(value)
        if not WNID.match(wnid):
            raise ValueError(f"{path} names its classes {wnid}, not n01532829 ...")
        yield wnid, ImageFile(f"{path.name}:{row:06d}", partial(_bytes_of, image))


def _label_names(metadata: Mapping[bytes, bytes]) -> list[str]:
    """What Hugging Face's writer calls the labels 0, 1, ..."""
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    names: list[str] = features.get("label", {}).get("names", [])
    return names


def _bytes_of(image: Any) -> bytes:
    value = image.as_py()
    data: bytes = value["bytes"] if isinstance(value, dict) else value
    return data


READERS: dict[str, Callable[[Path], Labelled]] = {".pickle": _pickled, ".pkl": _pickled, ".parquet": _in_parquet}
"""By the ending of a file's name; anything else is a tree of images."""
