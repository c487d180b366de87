"""Class splits as projects keep them beside their images: a list for each of train, val and test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from metarun.data.files.image_file import ImageFile
from metarun.data.files.labels import Labels, take_labels
from metarun.data.files.split_file import normalise_name
from metarun.data.files.split_words import find_parts
from metarun.data.files.splits import SPLITS
from metarun.data.files.table import ENDINGS, ImageIndex, Table, read_table

Lists = Mapping[str, ImageFile]
"""The list of each split."""


def find_lists(files: Sequence[ImageFile]) -> list[ImageFile]:
    """Find the files that may say which classes are whose, by their names."""
    return [file for file in files if file.path.lower().endswith(ENDINGS) and find_parts(PurePosixPath(file.path).stem)]


def choose_lists(lists: Sequence[ImageFile]) -> Lists | None:
    """Choose three lists, of train, val and test, that lie together and are of one kind; None if that is not clear."""
    together: dict[tuple[str, str], dict[str, list[ImageFile]]] = defaultdict(lambda: defaultdict(list))
    for file in lists:
        path = PurePosixPath(file.path)
        for part in find_parts(path.stem):
            together[str(path.parent), path.suffix.lower()][part].append(file)
    whole = [group for group in together.values() if all(len(group[part]) == 1 for part in SPLITS)]
    return {part: whole[0][part][0] for part in SPLITS} if len(whole) == 1 else None


def read_lists(
    lists: Sequence[ImageFile], classes: Mapping[str, object], index: ImageIndex, class_of: Mapping[str, str]
) -> dict[str, list[str]] | None:
    """Read the classes of each split: lines name a class, or an image of it, or both.

    Args:
        lists: files that are named after splits.
        class_of: the class of each image by its path.
    Returns: None if there is a line, but for the first of a table, that names no class.
    """
    spelled = {normalise_name(label): label for label in classes}
    parts: dict[str, set[str]] = {part: set() for part in SPLITS}
    for file in lists:
        try:
            table = read_table(file.read(), file.path)
        except ValueError:
            return None
        for number, row in enumerate(table.rows):
            cells = (*row, " ".join(row))
            label = next((spelled[name] for cell in cells if (name := normalise_name(cell)) in spelled), None)
            label = label or next((class_of[path] for cell in cells if (path := index.find(cell))), None)
            if label is None and not (number == 0 and table.columns):
                return None
            for part in find_parts(PurePosixPath(file.path).stem) if label else ():
                parts[part] |= {label} if label else set()
    return {part: sorted(labels) for part, labels in parts.items()}


def read_labels_of(lists: Lists, index: ImageIndex) -> Labels | None:
    """Read lists that name both the images and their classes: the class of each image, and the classes of each split.

    Returns: None if they do not.
    """
    classes: dict[str, str] = {}
    parts: dict[str, list[str]] = {}
    for part, file in lists.items():
        table: Table = read_table(file.read(), file.path)
        if not table.rows or len(table.rows[0]) < 2:
            return None
        try:
            found = take_labels(table, index, file.path)
        except ValueError:
            return None
        classes |= found.classes
        parts[part] = sorted(set(found.classes.values()))
    return Labels(classes, parts)
