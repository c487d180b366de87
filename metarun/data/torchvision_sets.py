from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarun.core.ranges import FilePath, PositiveInt
from metarun.core.tasks import EpisodePlan
from metarun.core.whole import whole_folder
from metarun.data.augment import Look
from metarun.data.files.decode import Channels, Interpolation, Scale, encode_bitmap
from metarun.data.files.download import fetch_once
from metarun.data.files.image_file import ImageFile
from metarun.data.files.known import describe_places
from metarun.data.files.load import load_images
from metarun.data.files.split_file import read_split_file
from metarun.data.files.splits import LEAST, USUAL, draw_split
from metarun.data.images import ImageTasks, Rotation
from metarun.data.places.torchvision_sets import name_folder


class Torchvision(ImageTasks):
    """A classification set of torchvision: tasks of its classes, for testing alone or split for training too.

    All for testing, it shows how well a learner transfers to another domain. Ten classes are few to split: two are left
    for validation and two for testing, or four times as many with each quarter turn as a class of its own. torchvision
    downloads the set and compares its checksums.

    Args:
        plan, device: from the runner.
        dataset: a class of torchvision.datasets whose items are an image and a label.
        options: further arguments of that class, besides the folder.
        root: where torchvision has unpacked it, or else it is downloaded to a folder in this one.
        cache: folder of the decoded images.
        split: None tests on all classes; `random` draws 64, 16 and 20 % of them, and five of each at least where there
            are fifteen; or a file of lines `train CLASS`, or a folder of lists, see metarun/data/files/split_file.py.
        rotation, trainval: see ImageTasks.
        transpose: swap rows and columns, since EMNIST's files have them swapped.
        image_size: side in pixels that the images are scaled to.
        channels: 3, or 1 for gray.
        interpolation: Pillow's filter.
        mean, std: see metarun/data/augment.py.
    """

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        dataset: str,
        options: Mapping[str, Any],
        root: FilePath,
        cache: FilePath,
        split: FilePath | None,
        rotation: Rotation,
        transpose: bool,
        image_size: PositiveInt,
        channels: Channels,
        interpolation: Interpolation,
        mean: Sequence[float],
        std: Sequence[float],
        trainval: bool,
    ) -> None:
        if split not in (None, "random") and not Path(split).expanduser().exists():
            raise ValueError(f"data.split={split} is not random, and no file")
        import torchvision.datasets  # takes two seconds: only to open the set

        dataset_class = getattr(torchvision.datasets, dataset, None)
        if dataset_class is None:
            raise ValueError(f"data.dataset={dataset} is not in torchvision.datasets")
        folder, elsewhere = name_folder(root, dataset, options), Path(root).expanduser() / dataset / "raw"
        there = folder / "data"

        def fetch() -> None:
            shutil.rmtree(there, ignore_errors=True)  # of a download that was not completed
            with whole_folder(there) as aside:
                dataset_class(str(aside), download=True, **options)

        if not (folder / "complete").exists() and _is_there(dataset_class, elsewhere, options):
            there, parts = elsewhere.parent.parent, sorted(elsewhere.iterdir())
        else:
            others = [elsewhere.parent] if elsewhere.parent.exists() else []
            held = describe_places(others, "all files that torchvision unpacks into raw")
            instead = "Set paths.data=FOLDER (or METARUN_DATA) to where it was downloaded before"
            fetch_once(folder, dataset, fetch, instead, ["data"], held)
            parts = [folder / "complete"]
        scale, look = Scale(image_size, interpolation, channels), Look(mean, std)
        stamp = f"{[(part.name, part.stat().st_mtime_ns) for part in parts]} {transpose}"

        def files() -> Mapping[str, list[ImageFile]]:
            return _list_by_class(dataset_class(str(there), **options), transpose)

        data = load_images(Path(cache), folder.name, stamp, files, scale)
        self.world = dataset
        super().__init__(data, _choose_split(split, data.names), plan, rotation, device, look, trainval)


def _choose_split(split: str | None, names: list[str]) -> dict[str, list[str]]:
    if split is None:
        return {"train": [], "val": [], "test": names}
    return draw_split(names, USUAL, 0, LEAST) if split == "random" else read_split_file(Path(split).expanduser())


def _is_there(dataset_class: Any, raw: Path, options: Mapping[str, Any]) -> bool:
    """Return whether the files that torchvision unpacked into `raw` are whole, by its own checks."""
    if not raw.is_dir():
        return False
    try:
        dataset_class(str(raw.parent.parent), **options)
    except RuntimeError:
        return False
    return True


def _list_by_class(images: Any, transpose: bool) -> Mapping[str, list[ImageFile]]:
    labels = next((getattr(images, name) for name in ("targets", "labels", "_labels") if hasattr(images, name)), None)
    if labels is None:
        labels = [label for _, label in images]
    names = getattr(images, "classes", None)
    classes: dict[str, list[ImageFile]] = defaultdict(list)
    for row, label in enumerate(np.asarray(labels).tolist()):
        classes[str(names[label]) if names else str(label)].append(
            ImageFile(f"{row:07d}", partial(_read, images, row, transpose))
        )
    return classes


def _read(images: Any, row: int, transpose: bool) -> bytes:
    pixels = np.asarray(images[row][0])
    return encode_bitmap(np.ascontiguousarray(pixels.swapaxes(0, 1)) if transpose else pixels)
