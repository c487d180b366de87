"""The 60,000 images of CIFAR-100, which CIFAR-FS and FC100 split in two ways."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torchvision.datasets import CIFAR100

from metarun.data.files.decode import Scale, bitmap, decoded
from metarun.data.files.download import once
from metarun.data.files.find import ImageFile, image_files, places, stamp
from metarun.data.files.unpickle import unpickle
from metarun.data.images import ImageClasses

log = logging.getLogger(__name__)


def cifar100(root: Path, cache: Path, scale: Scale) -> ImageClasses:
    """600 images of each of the 100 classes, in the order of their names in the original, whatever form they lie in.

    Looked for in `root`: images in folders named after their classes, in a folder or zip file `cifar_fs`, `fc100` or
    `cifar100`, or in zip files in such a folder; then the original's `cifar-100-python` in `cifar100`, which
    torchvision downloads if it is missing.
    Raises: ValueError if there is neither and the download fails.
    """
    root = root.expanduser()
    trees = _trees(root)
    if trees:
        return decoded(cache, "cifar100", stamp(trees), lambda: _by_class(trees), scale)
    original = _original(root)
    facts = repr([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(original.iterdir())])
    return decoded(cache, "cifar100", facts, lambda: _unpickled(original), scale)


def found(root: str) -> list[Path]:
    """The files that would be read, without downloading any."""
    original = Path(root).expanduser() / "cifar100" / str(CIFAR100.base_folder)
    return _trees(Path(root).expanduser()) or [original] * (original.parent / "complete").exists()


def _trees(root: Path) -> list[Path]:
    return next(filter(None, (places(root, name) for name in ("cifar_fs", "fc100", "cifar100"))), [])


def _by_class(trees: list[Path]) -> Mapping[str, list[ImageFile]]:
    classes: dict[str, list[ImageFile]] = defaultdict(list)
    for tree in trees:
        for file in image_files(tree):
            classes[file.path.split("/")[-2]].append(file)
    return {name: sorted(files, key=lambda file: file.path.split("/")[-1]) for name, files in classes.items()}


def _original(root: Path) -> Path:
    """The folder of the Python version."""
    folder = root / "cifar100"
    instead = (
        f"Put cifar-100-python.tar.gz, or images in folders named after their classes, into {folder}, or set "
        "paths.data=FOLDER (or METARUN_DATA)"
    )
    once(folder, "CIFAR-100", lambda: CIFAR100(str(folder), download=True), instead)
    return folder / str(CIFAR100.base_folder)


def _unpickled(folder: Path) -> Mapping[str, list[ImageFile]]:
    try:
        CIFAR100(str(folder.parent))  # compares the MD5 sums
    except RuntimeError as error:
        raise ValueError(f"{folder} is not what was published; delete it and {folder.parent / 'complete'}") from error
    names = unpickle(folder / "meta")["fine_label_names"]
    classes: dict[str, list[ImageFile]] = defaultdict(list)
    for part in ("train", "test"):
        content = unpickle(folder / part)
        for label, file, row in zip(content["fine_labels"], content["filenames"], content["data"], strict=True):
            classes[names[label]].append(
                ImageFile(f"{part}_{file}", partial(bitmap, row.reshape(3, 32, 32).transpose(1, 2, 0)))
            )
    return {name: sorted(files, key=lambda file: file.path) for name, files in classes.items()}
