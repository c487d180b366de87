"""Class splits: those that ship with the program, one name a line, and those in a person's own file."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from metarun.data.images import SPLITS

FOLDER = Path(__file__).parent / "lists"

log = logging.getLogger(__name__)


def read_split(name: str) -> dict[str, list[str]]:
    """The class names of train, val and test of the split `name`.

    Raises: ValueError naming the splits there are.
    """
    files = {split: FOLDER / f"{name}_{split}.txt" for split in SPLITS}
    if not all(file.is_file() for file in files.values()):
        known = sorted(file.name.removesuffix("_train.txt") for file in FOLDER.glob("*_train.txt"))
        raise ValueError(f"there is no split {name}; there are {', '.join(known)}")
    return {split: file.read_text().split() for split, file in files.items()}


def read_split_file(path: Path) -> dict[str, list[str]]:
    """A split in a file of lines `train CLASS`, or in a folder of train.txt, val.txt and test.txt, a class a line.

    Raises: ValueError for a line that is neither.
    """
    try:
        if path.is_dir():
            return {part: sorted(_lines((path / f"{part}.txt").read_text())) for part in SPLITS}
        split: dict[str, list[str]] = {name: [] for name in SPLITS}
        for line in _lines(path.read_text()):
            part, _, label = line.partition(" ")
            if part not in SPLITS or not label:
                raise ValueError(f"{path} has a line '{line[:60]}', which is not train, val or test and a class's name")
            split[part].append(label.strip())
        return {part: sorted(labels) for part, labels in split.items()}  # tasks depend on the order
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the class split {path}: {error}") from error


def write_split_file(path: Path, split: Mapping[str, Sequence[str]]) -> None:
    """Write what `read_split_file` reads, whole or not at all. Raises: ValueError if it cannot be written."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        aside.write_text("".join(f"{part} {label}\n" for part in SPLITS for label in split[part]))
        os.replace(aside, path)
    except OSError as error:
        raise ValueError(f"cannot write the class split {path}: {error.strerror}. Set data.split=FILE") from error
    log.info("split the classes %s into train, val, test: %s", "/".join(str(len(split[s])) for s in SPLITS), path)


def draw_split(names: Sequence[str], fractions: Sequence[float], seed: int) -> dict[str, list[str]]:
    """The classes `names`, shuffled by `seed` and cut at the fractions of train, val and test."""
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"data.fractions={list(fractions)} must be three numbers above 0 that sum to 1")
    ordered = sorted(names)
    shuffled = [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]
    n_val, n_test = (round(fraction * len(shuffled)) for fraction in fractions[1:])
    first = len(shuffled) - n_val - n_test
    parts = shuffled[:first], shuffled[first : first + n_val], shuffled[first + n_val :]
    return {part: sorted(labels) for part, labels in zip(SPLITS, parts, strict=True)}


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
