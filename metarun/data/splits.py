"""Class splits that ship with the program, one name a line."""

from __future__ import annotations

from pathlib import Path

from metarun.data.images import SPLITS

FOLDER = Path(__file__).parent / "splits"


def read_split(name: str) -> dict[str, list[str]]:
    """The class names of train, val and test of the split `name`.

    Raises: ValueError naming the splits there are.
    """
    files = {split: FOLDER / f"{name}_{split}.txt" for split in SPLITS}
    if not all(file.is_file() for file in files.values()):
        known = sorted(file.name.removesuffix("_train.txt") for file in FOLDER.glob("*_train.txt"))
        raise ValueError(f"there is no split {name}; there are {', '.join(known)}")
    return {split: file.read_text().split() for split, file in files.items()}
