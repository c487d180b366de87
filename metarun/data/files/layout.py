"""The classes that the folders of somebody's images show, and the splits if folders are named after them."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metarun.data.files.image_file import ImageFile
from metarun.data.files.split_file import normalise_name
from metarun.data.files.split_words import BESIDE, find_parts
from metarun.data.files.splits import SPLITS

log = logging.getLogger(__name__)

FolderPath = tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """What folders of images show.

    Attributes:
        classes: the images of each class. A class is named after the path of its folder, without what all folders share
            and without the folder that is named after a split.
        parts: the classes below the folders of each split; empty lists if no folders are named after the splits.
        unclear: why `parts` are no split though folders are named after the splits; empty if nothing is unclear.
        tables: what lies beside the folders and may tell classes, in words.
    """

    classes: dict[str, list[ImageFile]]
    parts: dict[str, list[str]]
    unclear: str = ""
    tables: str = ""

    @property
    def is_split(self) -> bool:
        """Whether the folders are the split: train, val and test have classes, and share none."""
        return all(self.parts.values()) and not self.unclear and not find_shared(self.parts)


def read_tree(images: Sequence[ImageFile], place: Path) -> Layout:
    """Take the folders that images of `place` lie in for their classes. Raises: ValueError if some name no class."""
    paths: dict[FolderPath, list[ImageFile]] = defaultdict(list)
    for file in images:
        paths[tuple(file.path.split("/")[:-1])].append(file)
    paths, shared = _cut_shared(paths)
    if () in paths:
        raise ValueError(
            f"{paths[()][0].path} and {len(paths[()]) - 1} more images of {place} lie in no class's folder; "
            "put the images of each class in a folder of its own"
        )
    kept = _leave_out_unlabelled(paths, place)
    if len(kept) < len(paths):
        kept, more = _cut_shared(kept)
        shared += more
    while len(kept) > 1 and min(map(len, kept)) > 1 and len({path[-1] for path in kept}) == 1:  # CLASS/images
        kept = {path[:-1]: files for path, files in kept.items()}
    return _read_parts(kept, shared, place)


def _cut_shared(
    paths: Mapping[FolderPath, list[ImageFile]],
) -> tuple[dict[FolderPath, list[ImageFile]], list[str]]:
    """Cut off the folders that all paths begin with, and return these too."""
    shared: list[str] = []
    while len(tops := {path[:1] for path in paths}) == 1 and () not in tops and len(paths) > 1:
        shared += tops.pop()
        paths = {path[1:]: files for path, files in paths.items()}
    return dict(paths), shared


def _leave_out_unlabelled(
    paths: Mapping[FolderPath, list[ImageFile]], place: Path
) -> dict[FolderPath, list[ImageFile]]:
    """Leave out images that lie in the folder of a split itself, where others lie in classes of a split.

    So does Kaggle give the pictures to be answered, and tiny-ImageNet those of val and test.
    """
    flat = {path for path in paths if find_parts(path[0]) and all(name.casefold() in BESIDE for name in path[1:])}
    below = {path[0] for path in paths if find_parts(path[0])} - {path[0] for path in flat}
    if not flat or not below:
        return dict(paths)
    log.warning(
        "%d images of %s are left out: they lie in %s, which name no class",
        *(sum(len(paths[path]) for path in flat), place, name_some(sorted("/".join(path) for path in flat))),
    )
    return {path: files for path, files in paths.items() if path not in flat}


def find_shared(parts: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the classes that are in several of the parts."""
    return sorted(label for label, count in Counter(label for p in parts.values() for label in p).items() if count > 1)


def name_some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _read_parts(paths: Mapping[FolderPath, list[ImageFile]], shared: Sequence[str], place: Path) -> Layout:
    """Make a layout of the images in folders at `paths`, which lie in those that all of them share."""
    depths = [d for d in range(min(map(len, paths))) if _tells_splits({path[d] for path in paths})]
    depth = depths[0] if len(depths) == 1 else None
    tested = [name for name in shared if find_parts(name) - {"train"}]
    odd = _find_odd(paths) if depth is None else set()
    classes: dict[str, list[ImageFile]] = {}
    found: dict[str, dict[str, None]] = {part: {} for part in SPLITS}
    spelled: dict[str, str] = {}
    for path, files in sorted(paths.items()):
        label = "/".join(path if depth is None else path[:depth] + path[depth + 1 :])
        if not label:
            names = ", ".join(sorted(path[0] for path in paths))
            raise ValueError(
                f"images of {place} lie in the folders {names}, which name no classes: put the images of each class in "
                "a folder of its own there"
            )
        label = _unify(label, spelled, place)
        classes.setdefault(label, []).extend(files)
        named = [*tested, *(name for name in path if name in odd)] if depth is None else [path[depth]]
        for part in sorted(set().union(*map(find_parts, named))):
            found[part][label] = None
    _warn_of_namesakes(classes, place)
    parts = {part: list(labels) for part, labels in found.items()}
    if odd:
        unclear = f"some of its folders are named after splits, {min(odd)} among them, and others not"
    elif tested:
        unclear = f"all of its images lie in {tested[0]}"
    else:
        unclear = "" if depth is None else explain_parts(parts)
    return Layout(classes, parts, unclear)


def _tells_splits(names: Iterable[str]) -> bool:
    """Return whether each of the names is that of one split, and they are not all of the same."""
    found = [find_parts(name) for name in names]
    return all(len(parts) == 1 for parts in found) and len(set().union(*found)) > 1


def _find_odd(paths: Iterable[FolderPath]) -> set[str]:
    """Return the folders that are named after splits where not all are.

    The folder of a class may have such a name, as `novel` beside `poem`, but not beside one of another split.
    """
    found: set[str] = set()
    beside: dict[FolderPath, dict[str, set[str]]] = defaultdict(dict)
    for path in paths:
        found |= {name for name in path[:-1] if find_parts(name)}
        if parts := find_parts(path[-1]):
            beside[path[:-1]][path[-1]] = parts
    for names in beside.values():
        found |= set(names) if len(set().union(*names.values())) > 1 else set()
    return found


def explain_parts(parts: Mapping[str, list[str]]) -> str:
    """Say why folders that are named after the splits are none; return an empty string if they are, or if it is clear.

    It is clear that the folders of an ordinary data set, which has images of each class in train, are to be merged.
    """
    shared = set(find_shared(parts))
    if shared and {*parts["val"], *parts["test"]} <= set(parts["train"]):
        return ""
    if shared:
        return f"its folders of train, val and test share {len(shared)} classes, {min(shared)} among them, but not all"
    empty = [part for part, labels in parts.items() if not labels]
    return f"no folder of it is named after {' and '.join(empty)}" if empty else ""


def _warn_of_namesakes(classes: Iterable[str], place: Path) -> None:
    """Tell of folders that may be one class, as those of the same name in the folders of two domains."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for label in classes:
        by_name[label.rpartition("/")[2]].append(label)
    several = [labels for labels in by_name.values() if len(labels) > 1]
    if several:
        log.warning(
            "%d folders of %s have a name that another one has, as %s and %s: each is taken for a class of its own. If "
            "they are one class, put their images into one folder",
            *(sum(map(len, several)), place, several[0][0], several[0][1]),
        )


def _unify(label: str, spelled: dict[str, str], place: Path) -> str:
    """Return the first label that reads as this one does. Raises: ValueError if it cannot be written as text."""
    try:
        label.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the folder {label!a} of {place} has a name that is not UTF-8: rename it") from error
    first = spelled.setdefault(normalise_name(label), label)
    if first != label:
        log.warning("the folders %r and %r are one class: their names read alike", first, label)
    return first
