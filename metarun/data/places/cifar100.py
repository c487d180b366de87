"""Where CIFAR-FS, FC100 and CIFAR-100 lie."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from metarun.data.files.find import find_places, find_set, list_files
from metarun.data.files.image_file import is_image

ORIGINAL = "cifar-100-python.tar.gz"


def find_files(root: str, name: str) -> list[Path]:
    """Return the files that would be read, without downloading any."""
    return find_named(Path(root).expanduser(), name) or find_original(Path(root).expanduser())


def find_named(root: Path, name: str) -> list[Path]:
    """Find the files of this split, or images of CIFAR-100 in folders named after their classes, whatever the split."""
    own = find_set(root, [name], [f"{name.replace('_', '?').upper()}_*.pickle"])
    names = ("cifar_fs", "fc100", "cifar100")
    others = (find_places(root, other, without=ORIGINAL) for other in names if other != name)
    return own or next((places for places in others if _hold_names(places)), [])


def _hold_names(places: Sequence[Path]) -> bool:
    """Return whether images lie in places, or files that name their classes; pickles number those of their split.

    A folder with links that lead nowhere has none that can be read.
    """

    def holds(place: Path) -> bool:
        with suppress(ValueError):
            return any(is_image(file.path) or file.path.endswith(".parquet") for file in list_files(place))
        return False

    return any(place.is_file() or holds(place) for place in places)


def find_original(root: Path) -> list[Path]:
    """Find the original, as torchvision unpacks it."""
    inner = root / "cifar100" / "cifar-100-python"
    return [place for place in (inner, root / inner.name) if place.is_dir() and (place != inner or is_complete(inner))]


def is_complete(original: Path) -> bool:
    return (original.parent / "complete").exists()
