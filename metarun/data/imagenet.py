from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import torch

from metarun.core.ranges import FilePath
from metarun.core.tasks import EpisodePlan
from metarun.data.counts import warn_if_not_whole
from metarun.data.files.decode import Fit, Scale, encode_bitmap
from metarun.data.files.find import ImageFile, find_places, group_by_class, list_images, make_stamp
from metarun.data.files.load import load_images
from metarun.data.files.splits import read_split
from metarun.data.files.unpickle import unpickle
from metarun.data.images import ImageClasses
from metarun.data.photos import PhotoSettings, PhotoTasks

WNID = re.compile(r"(?:^|/)(n\d{8})")
"""The id of a class, as the name of a folder or at the beginning of a file's name."""

PUBLISHED: dict[str, tuple[int, int | None]] = {"mini_imagenet": (60_000, 600), "tiered_imagenet": (779_165, None)}
"""Images of each set, and of each of its classes if all have as many."""

LabelledFiles = Iterator[tuple[str, ImageFile]]


class ImageNetTasks(PhotoTasks):
    """mini-ImageNet and tiered-ImageNet: classes of ImageNet, images of 84x84.

    mini-ImageNet has 100 classes of 600 images, split 64/16/20. The classes and the split are those of Ravi and
    Larochelle; Vinyals' own were never published. tiered-ImageNet has 608 classes and 779,165 images, split 351/97/160
    by the 34 categories above the classes, so that test classes are unlike training classes.

    Args:
        plan, device: from the runner.
        name: `mini_imagenet` or `tiered_imagenet`.
        root: the folder where it lies, see `load_imagenet`.
        fit: what happens to an image that is not square: `crop` cuts out the middle square, `stretch` deforms it. The
            usual 84x84 files are square.
        photos: see PhotoSettings.
    Reference: Ravi, Larochelle. Optimization as a Model for Few-Shot Learning. ICLR 2017, section 5.1 (mini).
        Ren et al. Meta-Learning for Semi-Supervised Few-Shot Classification. ICLR 2018. arXiv:1803.00676, section 4.1
        (tiered).
    """

    world = "imagenet"

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        name: Literal["mini_imagenet", "tiered_imagenet"],
        root: FilePath,
        fit: Fit,
        **photos: Unpack[PhotoSettings],
    ) -> None:
        split, scale = read_split(name), Scale(photos["image_size"], photos["interpolation"], fit=fit)
        data = load_imagenet(Path(root), Path(photos["cache"]), name, split, scale)
        super().__init__(data, split, plan, device, **photos)
        warn_if_not_whole(name, self.info.facts["images"], *PUBLISHED[name])

    @staticmethod
    def find_files(root: str, name: str) -> list[Path]:
        return find_files_of(Path(root), name)


def load_imagenet(root: Path, cache: Path, name: str, split: Mapping[str, list[str]], scale: Scale) -> ImageClasses:
    """Load the images of the set `name` whose classes, WordNet ids, are in `split`, in the order of their names.

    They may lie in `root` as NAME.zip, or in its folder NAME: as zip files; as pickles of `image_data` and `class_dict`
    or of `data`, `labels` and `catname2label`; as parquet files with columns `image` and `label`; or as images whose
    folder is named after their class or whose own name begins with its id.

    Raises: ValueError if there are none, or one cannot be read.
    """
    wanted = {label for labels in split.values() for label in labels}
    found = find_files_of(root, name)
    if not found:
        raise ValueError(
            f"no {name} in {root}, and it may not be downloaded freely. Put its images into {root / name}, in folders "
            "named after their classes (n01532829 ...), or as zip, pickle or parquet files, or set paths.data=FOLDER "
            "(or METARUN_DATA)"
        )

    def files() -> Mapping[str, list[ImageFile]]:
        labelled = (pair for path in found for pair in READERS.get(path.suffix, _read_tree)(path))
        return group_by_class((label, file) for label, file in labelled if label in wanted)

    return load_images(cache, name, make_stamp(found), files, scale)


def find_files_of(root: Path, name: str) -> list[Path]:
    """Return the files, or the folder, that the set `name` would be read from."""
    root = root.expanduser()
    return sorted(path for path in (root / name).rglob("*") if path.suffix in READERS) or find_places(root, name)


def _read_tree(place: Path) -> LabelledFiles:
    for file in list_images(place):
        label = WNID.findall(file.path)
        if not label:
            raise ValueError(
                f"{file.path} of {place} has no class: neither its folder nor its name begins as n01532829"
            )
        yield label[-1], file


def _read_pickle(path: Path) -> LabelledFiles:
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
            yield label, ImageFile(f"{path.name}:{row:06d}", partial(encode_bitmap, images[row]))


def _read_parquet(path: Path) -> LabelledFiles:
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
        yield wnid, ImageFile(f"{path.name}:{row:06d}", partial(_read_bytes, image))


def _label_names(metadata: Mapping[bytes, bytes]) -> list[str]:
    """Return the class names of the labels 0, 1, ... that Hugging Face's writer stores."""
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    names: list[str] = features.get("label", {}).get("names", [])
    return names


def _read_bytes(image: Any) -> bytes:
    value = image.as_py()
    data: bytes = value["bytes"] if isinstance(value, dict) else value
    return data


READERS: dict[str, Callable[[Path], LabelledFiles]] = {
    ".pickle": _read_pickle,
    ".pkl": _read_pickle,
    ".parquet": _read_parquet,
}
"""Readers by the ending of a file's name; anything else is a tree of images."""
