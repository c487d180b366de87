from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Literal, Unpack

import torch

from metarun.core.known_source import NUMBERED
from metarun.core.ranges import FilePath
from metarun.core.tasks import EpisodePlan
from metarun.data.counts import warn_if_not_whole
from metarun.data.files.decode import Scale, encode_bitmap
from metarun.data.files.download import fetch_once
from metarun.data.files.find import find_alike, group_by_class, make_stamp
from metarun.data.files.image_file import ImageFile
from metarun.data.files.known import Split, describe_places, find_split, read_set
from metarun.data.files.load import load_images
from metarun.data.files.splits import read_split
from metarun.data.files.unpickle import unpickle
from metarun.data.images import ImageClasses
from metarun.data.photos import PhotoSettings, PhotoTasks
from metarun.data.places.cifar100 import ORIGINAL, find_named, find_original, is_complete


class CIFAR100Tasks(PhotoTasks):
    """CIFAR-FS and FC100: the 100 classes of CIFAR-100, 600 images of 32x32 each, split in two ways.

    CIFAR-FS splits the classes 64/16/20 at random. FC100 splits them 60/20/20 by superclass, so that test classes are
    unlike training classes. Of the 20 superclasses 12 train (things, scenes, vehicles, plants, fish, reptiles), 4
    validate (large animals, small mammals, invertebrates) and 4 test (people, insects, aquatic and medium mammals).

    Args:
        plan, device: from the runner.
        name: the split, `cifar_fs` or `fc100`.
        root: the folder where CIFAR-100 lies or is downloaded to, see `load_cifar100`.
        photos: see PhotoSettings; the originals have 32x32 pixels.
    Reference: Bertinetto, Henriques, Torr, Vedaldi. Meta-learning with differentiable closed-form solvers. ICLR 2019.
        arXiv:1805.08136, section 4.1 (CIFAR-FS).
        Oreshkin, Rodriguez, Lacoste. TADAM. NeurIPS 2018. arXiv:1805.10123 (FC100).
    """

    world = "cifar100"

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        name: Literal["cifar_fs", "fc100"],
        root: FilePath,
        **photos: Unpack[PhotoSettings],
    ) -> None:
        split, scale = read_split(name), Scale(photos["image_size"], photos["interpolation"])
        data = load_cifar100(Path(root), Path(photos["cache"]), name, split, scale)
        if (own := find_split(data.names, split)) != split:
            self.world += f"{NUMBERED}{name}"
        super().__init__(data, own, plan, device, **photos)
        warn_if_not_whole(name, self.info.facts["images"], 60_000, of_class=600)


def load_cifar100(root: Path, cache: Path, name: str, split: Split, scale: Scale) -> ImageClasses:
    """Load the images of CIFAR-FS or FC100, in the order of their file names.

    They may lie in `root` in a folder or archive `cifar_fs`, `fc100` or `cifar100`: as images in folders named after
    their classes, as archives of such, or as packed files, see metarun/data/files/packed.py. Otherwise this reads the
    original, `cifar-100-python` in `root` or its folder `cifar100`, which torchvision downloads if it is missing.
    Raises: ValueError if there is neither and the download fails.
    """
    root = root.expanduser()
    if places := find_named(root, name):
        return load_images(cache, "cifar100", make_stamp(places), lambda: read_set(places, split, _find_class), scale)
    original = next(iter(find_original(root)), None) or _fetch_original(root, name)
    stamp = repr([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(original.iterdir())])
    return load_images(cache, "cifar100", stamp, lambda: _read_pickles(original), scale)


def _find_class(path: str) -> str | None:
    return path.split("/")[-2] if "/" in path else None


def _fetch_original(root: Path, name: str) -> Path:
    """Download the original if it is missing, and return the folder of its Python version."""
    folder = root / "cifar100"
    instead = (
        f"Put {ORIGINAL}, or images in folders named after their classes, into {folder}, or set "
        "paths.data=FOLDER (or METARUN_DATA)"
    )
    held = describe_places(find_alike(root, name, "cifar100"))
    from torchvision.datasets import CIFAR100

    makes = (ORIGINAL, "cifar-100-python")
    fetch_once(folder, "CIFAR-100", lambda: CIFAR100(str(folder), download=True), instead, makes, held)
    return folder / str(CIFAR100.base_folder)


def _read_pickles(folder: Path) -> Mapping[str, list[ImageFile]]:
    from torchvision.datasets import CIFAR100

    try:
        CIFAR100(str(folder.parent))  # compares the MD5 sums
    except RuntimeError as error:
        done = f" and {folder.parent / 'complete'}" if is_complete(folder) else ""
        raise ValueError(f"{folder} is not what was published; delete it{done}") from error
    return group_by_class(labelled for part in ("train", "test") for labelled in _read_part(folder, part))


def _read_part(folder: Path, part: str) -> Iterator[tuple[str, ImageFile]]:
    names, content = unpickle(folder / "meta")["fine_label_names"], unpickle(folder / part)
    for label, file, row in zip(content["fine_labels"], content["filenames"], content["data"], strict=True):
        pixels = row.reshape(3, 32, 32).transpose(1, 2, 0)
        yield names[label], ImageFile(f"{part}_{file}", partial(encode_bitmap, pixels))
