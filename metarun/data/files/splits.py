"""Class splits: shipped with the program, in a user's own file or drawn; and whether tasks can be drawn from one."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from metarun.core.episodes import Ints
from metarun.core.tasks import EpisodePlan, EpisodeShape
from metarun.core.whole import written_whole

SPLITS = ("train", "val", "test")

FOLDER = Path(__file__).parent / "lists"
"""The shipped splits, a file for each part with one class a line."""

log = logging.getLogger(__name__)


def read_split(name: str) -> dict[str, list[str]]:
    """Return the class names of train, val and test of the shipped split `name`.

    Raises: ValueError that lists the shipped splits if it is not one of them.
    """
    files = {split: FOLDER / f"{name}_{split}.txt" for split in SPLITS}
    if not all(file.is_file() for file in files.values()):
        known = sorted(file.name.removesuffix("_train.txt") for file in FOLDER.glob("*_train.txt"))
        raise ValueError(f"there is no split {name}; there are {', '.join(known)}")
    return {split: file.read_text().split() for split, file in files.items()}


def read_split_file(path: Path) -> dict[str, list[str]]:
    """Read a split from a file of lines `train CLASS`, or from train.txt, val.txt and test.txt in a folder.

    The files in a folder hold one class a line.
    Raises: ValueError if it cannot be read or a line is malformed.
    """
    try:
        if path.is_dir():
            return {part: sorted(_read_lines((path / f"{part}.txt").read_text())) for part in SPLITS}
        split: dict[str, list[str]] = {name: [] for name in SPLITS}
        for line in _read_lines(path.read_text()):
            part, _, label = line.partition(" ")
            if part not in SPLITS or not label:
                raise ValueError(f"{path} has a line '{line[:60]}', which is not train, val or test and a class's name")
            split[part].append(label.strip())
        return {part: sorted(labels) for part, labels in split.items()}  # tasks depend on the order of the classes
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the class split {path}: {error}") from error


def write_split_file(path: Path, split: Mapping[str, Sequence[str]]) -> None:
    """Write a file that `read_split_file` reads, whole or not at all. Raises: ValueError if it cannot be written."""
    lines = (f"{part} {label}\n" for part in SPLITS for label in split[part])
    try:
        with written_whole(path) as file:
            file.write("".join(lines).encode())
    except OSError as error:
        raise ValueError(f"cannot write the class split {path}: {error.strerror}. Set data.split=FILE") from error
    log.info("split the classes %s into train, val, test: %s", "/".join(str(len(split[s])) for s in SPLITS), path)


def draw_split(names: Sequence[str], fractions: Sequence[float], seed: int) -> dict[str, list[str]]:
    """Shuffle the classes `names` by `seed` and split them into these fractions for train, val and test."""
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"data.fractions={list(fractions)} must be three numbers above 0 that sum to 1")
    ordered = sorted(names)
    shuffled = [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]
    n_val, n_test = (round(fraction * len(shuffled)) for fraction in fractions[1:])
    first = len(shuffled) - n_val - n_test
    parts = shuffled[:first], shuffled[first : first + n_val], shuffled[first + n_val :]
    return {part: sorted(labels) for part, labels in zip(SPLITS, parts, strict=True)}


def check_split(
    split: Mapping[str, list[str]],
    sizes: Mapping[str, int],
    plan: EpisodePlan,
    turns: Mapping[str, int] | None = None,
    trainval: bool = False,
) -> dict[str, list[str]]:
    """Check that the tasks of `plan` can be drawn from a split, and return the split that they are drawn from.

    That is the same split, but with the classes of val added to train if `trainval` is set.

    Args:
        split: class names of each of train, val, test.
        sizes: number of images of each class.
        plan: shapes of the tasks.
        turns: number of classes that rotation makes of one class, for each split; None means one.
        trainval: train on the classes of val too.
    Raises: ValueError if splits share a class, or the plan needs more classes or images than there are.
    """
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = sorted(set(split[one]) & set(split[other]))
        if shared:
            raise ValueError(f"splits {one} and {other} share {len(shared)} classes, {shared[0]} among them")
    missing = [name for labels in split.values() for name in labels if name not in sizes]
    if missing:
        raise ValueError(f"{len(missing)} classes of the split have no images, {missing[0]} among them")
    used = {**split, "train": [*split["train"], *(split["val"] if trainval else [])]}
    problems = []
    for name in plan.splits:
        key, shape = ("data.train", plan.train) if name == "train" else ("data", plan.test)
        have, need = (turns or {}).get(name, 1) * len(used[name]), shape.k_shot + shape.n_query
        if 0 < have < shape.n_way:
            problems.append(
                f"{key}.n_way={shape.n_way} needs {shape.n_way} classes; split '{name}' has {have}. "
                f"Set {key}.n_way={have} or less"
            )
        short = sorted((sizes[c], c) for c in used[name] if sizes[c] < need)
        if short:
            smallest, label = short[0]
            more = f", and {len(short) - 1} more have too few" if len(short) > 1 else ""
            problems.append(
                f"{key}.k_shot={shape.k_shot} and {key}.n_query={shape.n_query} need {need} images of a class; "
                f"'{label}' of split '{name}' has {smallest}{more}. "
                f"Set {key}.n_query={max(smallest - shape.k_shot, 1)} or less"
            )
    if problems:
        raise ValueError("\n".join(problems))
    return used


def find_superclasses(
    names: list[str], superclass_of: Callable[[str], str], turns: int, shape: EpisodeShape
) -> list[Ints]:
    """Return the class numbers of each superclass that has enough classes for a task, once for each turn.

    Raises: ValueError if none has enough.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for number, name in enumerate(names):
        members[superclass_of(name)].append(number)
    enough = [np.array(numbers) for numbers in members.values() if len(numbers) >= shape.n_way]
    if members and not enough:
        most = max(map(len, members.values()))
        raise ValueError(f"n_way={shape.n_way} needs as many classes of one superclass; the largest has {most}")
    return [numbers + turn * len(names) for turn in range(turns) for numbers in enough]


def _read_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
