"""Class splits: shipped with the program or drawn; and whether tasks can be drawn from one."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from metarun.core.episodes import Ints
from metarun.core.tasks import EpisodePlan, EpisodeShape

SPLITS = ("train", "val", "test")

LEAST_WAYS = 2
"""Classes that a task has at least."""

USUAL, LEAST = (0.64, 0.16, 0.2), dict.fromkeys(SPLITS, 5)
"""Shares of the classes of a split that is drawn at each start, and classes that it has of each part where there are
enough. It must not depend on the tasks."""

FOLDER = Path(__file__).parent / "lists"
"""The shipped splits, a file for each part with one class in each line."""


def read_split(name: str) -> dict[str, list[str]]:
    """Return the class names of train, val and test of the shipped split `name`.

    Raises: ValueError that lists the shipped splits if it is not one of them.
    """
    files = {split: FOLDER / f"{name}_{split}.txt" for split in SPLITS}
    if not all(file.is_file() for file in files.values()):
        known = sorted(file.name.removesuffix("_train.txt") for file in FOLDER.glob("*_train.txt"))
        raise ValueError(f"there is no split {name}; there are {', '.join(known)}")
    return {split: file.read_text().split() for split, file in files.items()}


def draw_split(
    names: Sequence[str], fractions: Sequence[float], seed: int, least: Mapping[str, int] | None = None
) -> dict[str, list[str]]:
    """Shuffle the classes `names` by `seed` and split them into these fractions for train, val and test.

    Args:
        least: the classes that each split gets at least, where there are enough in all.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"data.fractions={list(fractions)} must be three numbers above 0 that sum to 1")
    shuffled = _shuffle(names, seed)
    counts = _round_counts(len(shuffled), fractions, least or dict.fromkeys(SPLITS, 0))
    first, second = counts["train"], counts["train"] + counts["val"]
    parts = shuffled[:first], shuffled[first:second], shuffled[second:]
    return {part: sorted(labels) for part, labels in zip(SPLITS, parts, strict=True)}


def count_ways(plan: EpisodePlan) -> dict[str, int]:
    """Return the number of classes that the tasks of each split have, whether any are drawn from it or not.

    So a split that is drawn is the same for a run and for a test of it.
    """
    return {part: plan.shape_of(part).n_way for part in SPLITS}


def _round_counts(n: int, fractions: Sequence[float], least: Mapping[str, int]) -> dict[str, int]:
    """Return the number of classes of each split of n classes: the fractions, but at least `least` if n allows it."""
    counts = {part: round(fraction * n) for part, fraction in zip(SPLITS, fractions, strict=True)}
    counts["train"] = n - counts["val"] - counts["test"]
    if sum(least.values()) > n:
        return counts
    while short := next((part for part in ("val", "test", "train") if counts[part] < least[part]), None):
        most = max(SPLITS, key=lambda part: counts[part] - least[part])
        counts[most] -= 1
        counts[short] += 1
    return counts


def hash_split(split: Mapping[str, Sequence[str]]) -> str:
    """Return a hash of which classes are in which split."""
    return hashlib.sha256("\n".join(f"{s} {name}" for s in SPLITS for name in sorted(split[s])).encode()).hexdigest()


def complete_split(
    parts: Mapping[str, list[str]], fractions: Sequence[float], seed: int
) -> dict[str, list[str]] | None:
    """Return the split with val or test drawn from train, in the proportion of `fractions`, if it has no classes.

    Returns: None if both have none, or train has none, or two parts share a class.
    """
    empty = [part for part in SPLITS if not parts[part]]
    labels = [label for part in SPLITS for label in parts[part]]
    if len(empty) > 1 or "train" in empty or len(set(labels)) < len(labels):
        return None
    if not empty:
        return dict(parts)
    wanted = fractions[SPLITS.index(empty[0])]
    n = max(round(wanted / (fractions[0] + wanted) * len(parts["train"])), 1)
    shuffled = _shuffle(parts["train"], seed)
    return {**parts, "train": sorted(shuffled[n:]), empty[0]: sorted(shuffled[:n])}


def advise_ways(n_classes: int, plan: EpisodePlan) -> str:
    """Say how many classes the tasks of `plan` need, and what to set with fewer; empty if there are enough."""
    need = {part: ways for part, ways in count_ways(plan).items() if part in plan.splits}
    if n_classes >= sum(need.values()):
        return ""
    least = n_classes // len(need)
    said = " + ".join(map(str, need.values()))
    words = f"Tasks need {said} = {sum(need.values())} classes in all ({', '.join(need)})"
    if least < LEAST_WAYS:
        return f"{words}, and {LEAST_WAYS * len(need)} at the least: add classes"
    return f"{words}. Add classes, or set data.n_way={least} data.train.n_way={least}"


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
    Raises: ValueError if a class stands twice in a split or in two, or the plan needs more classes or images than there
        are.
    """
    for part, labels in split.items():
        twice = sorted(name for name, count in Counter(labels).items() if count > 1)
        if twice:
            raise ValueError(f"split {part} names {len(twice)} classes more than once, {twice[0]} among them")
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = sorted(set(split[one]) & set(split[other]))
        if shared:
            raise ValueError(f"splits {one} and {other} share {len(shared)} classes, {shared[0]} among them")
    missing = [name for labels in split.values() for name in labels if name not in sizes]
    if missing:
        known = f"; classes with images are {', '.join([*sizes][:3])}, ..." if sizes else ""
        raise ValueError(f"{len(missing)} classes of the split have no images, {missing[0]} among them{known}")
    used = {**split, "train": [*split["train"], *(split["val"] if trainval else [])]}
    problems = []
    for name in plan.splits:
        key, shape = ("data.train", plan.train) if name == "train" else ("data", plan.test)
        have, need = (turns or {}).get(name, 1) * len(used[name]), shape.least_images
        if 0 < have < shape.n_way:
            remedy = f". Set {key}.n_way={have} or less" if have >= LEAST_WAYS else ""
            problems.append(f"{key}.n_way={shape.n_way} needs {shape.n_way} classes; split '{name}' has {have}{remedy}")
        short = sorted((sizes[c], c) for c in used[name] if sizes[c] < need)
        if short:
            smallest, label = short[0]
            more = f", and {len(short) - 1} more have too few" if len(short) > 1 else ""
            most = (smallest - shape.k_shot) * shape.n_query // shape.most_queries
            remedy = (
                f"{key}.n_query={most} or less" if most > 0
                else f"{key}.query=balanced" if shape.alpha is not None
                else f"{key}.k_shot={smallest - 1} or less and {key}.n_query=1" if smallest > 1
                else "another split without it"
            )  # fmt: skip
            many = (
                f"{shape.n_query}, which data.query=dirichlet may take from one class,"
                if shape.alpha
                else shape.n_query
            )
            problems.append(
                f"{key}.k_shot={shape.k_shot} and {key}.n_query={many} need {need} images of a class; "
                f"'{label}' of split '{name}' has {smallest}{more}. Set {remedy}"
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


def find_alphabet(character: str) -> str:
    """Return the alphabet of a character whose name is ALPHABET/CHARACTER."""
    return character.split("/")[0]


def _shuffle(names: Sequence[str], seed: int) -> list[str]:
    ordered = sorted(names)
    return [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]
