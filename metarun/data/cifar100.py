from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Literal, Unpack

import torch

from metarun.core.ranges import FilePath
from metarun.core.tasks import EpisodePlan
from metarun.data.counts import warn_if_not_whole
from metarun.data.files.decode import Scale, encode_bitmap
from metarun.data.files.download import fetch_once
from metarun.data.files.find import ImageFile, find_places, group_by_class, list_images, make_stamp
from metarun.data.files.load import load_images
from metarun.data.files.splits import read_split
from metarun.data.files.unpickle import unpickle
from metarun.data.images import ImageClasses
from metarun.data.photos import PhotoSettings, PhotoTasks


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
        scale = Scale(photos["image_size"], photos["interpolation"])
        data = load_cifar100(Path(root), Path(photos["cache"]), scale)
        super().__init__(data, read_split(name), plan, device, **photos)
        warn_if_not_whole(name, self.info.facts["images"], 60_000, of_class=600)

    @staticmethod
    def find_files(root: str) -> list[Path]:
        """Return the files that would be read, without downloading any."""
        original = Path(root).expanduser() / "cifar100" / "cifar-100-python"  # as torchvision unpacks it
        return _find_trees(Path(root).expanduser()) or [original] * (original.parent / "complete").exists()


def load_cifar100(root: Path, cache: Path, scale: Scale) -> ImageClasses:
    """Load 600 images of each of the 100 classes, in the order of their file names in the original.

    They may lie in `root` in a folder or zip file `cifar_fs`, `fc100` or `cifar100`, as images in folders named after
    their classes or as zip files of such. Otherwise this reads the original, `cifar-100-python` in the folder
    `cifar100`, which torchvision downloads if it is missing.
    Raises: ValueError if there is neither and the download fails.
    """
    root = root.expanduser()
    trees = _find_trees(root)
    if trees:
        return load_images(cache, "cifar100", make_stamp(trees), lambda: _read_trees(trees), scale)
    original = _fetch_original(root)
    stamp = repr([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(original.iterdir())])
    return load_images(cache, "cifar100", stamp, lambda: _read_pickles(original), scale)


def _find_trees(root: Path) -> list[Path]:
    return next(filter(None, (find_places(root, name) for name in ("cifar_fs", "fc100", "cifar100"))), [])


def _read_trees(trees: list[Path]) -> Mapping[str, list[ImageFile]]:
    return group_by_class((file.path.split("/")[-2], file) for tree in trees for file in list_images(tree))


def _fetch_original(root: Path) -> Path:
    """Download the original if it is missing, and return the folder of its Python version."""
    folder = root / "cifar100"
    instead = (
        f"Put cifar-100-python.tar.gz, or images in folders named after their classes, into {folder}, or set "
        "paths.data=FOLDER (or METARUN_DATA)"
    )
    from torchvision.datasets import CIFAR100

    fetch_once(folder, "CIFAR-100", lambda: CIFAR100(str(folder), download=True), instead)
    return folder / str(CIFAR100.base_folder)


def _read_pickles(folder: Path) -> Mapping[str, list[ImageFile]]:
    from torchvision.datasets import CIFAR100

    try:
        CIFAR100(str(folder.parent))  # compares the MD5 sums
    except RuntimeError as error:
        raise ValueError(f"{folder} is not what was published; delete it and {folder.parent / 'complete'}") from error
    return group_by_class(labelled for part in ("train", "test") for labelled in _read_part(folder, part))


def _read_part(folder: Path, part: str) -> Iterator[tuple[str, ImageFile]]:
    names, content = unpickle(folder / "meta")["fine_label_names"], unpickle(folder / part)
    for label, file, row in zip(content["fine_labels"], content["filenames"], content["data"], strict=True):
        pixels = row.reshape(3, 32, 32).transpose(1, 2, 0)
        yield names[label], ImageFile(f"{part}_{file}", partial(encode_bitmap, pixels))
