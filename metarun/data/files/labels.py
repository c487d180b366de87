"""The classes of images by a table, with whatever its columns are called."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from metarun.data.files.image_file import ImageFile, is_image
from metarun.data.files.split_file import normalise_name
from metarun.data.files.split_words import find_parts
from metarun.data.files.splits import SPLITS
from metarun.data.files.table import ImageIndex, Row, Table, read_table

log = logging.getLogger(__name__)

LABEL_WORDS = (
    "label",
    "class",
    "category",
    "species",
    "breed",
    "target",
    "variety",
    "kind",
    "class_name",
    "label_name",
)
"""What the column of classes is called where there are several to choose from; the first that is there counts."""


class Labels(NamedTuple):
    """The class of each image by its path, and the classes of each split if the table tells them."""

    classes: dict[str, str]
    parts: dict[str, list[str]]


def read_labels(path: Path, images: Sequence[ImageFile]) -> Labels:
    """Read a table of files, their classes and perhaps their splits.

    Raises: ValueError if it names none of the images, or it is not clear which of its columns is that of the classes.
    """
    try:
        table = read_table(path.read_bytes(), str(path))
    except OSError as error:
        raise ValueError(f"cannot read data.labels={path}: {error.strerror}") from error
    labels = take_labels(table, ImageIndex(images), str(path))
    if missing := [file.path for file in images if file.path not in labels.classes]:
        log.warning("%d images are in no line of %s and not used, %s among them", len(missing), path, missing[0])
    return labels


def take_labels(table: Table, index: ImageIndex, name: str) -> Labels:
    """Find the columns of a table by what stands in them, and what it says of the images.

    Raises: ValueError as `read_labels` does.
    """
    width = max(map(len, table.rows), default=0)
    rows = [row for row in table.rows if len(row) == width]
    hits = [[index.find(row[column]) for row in rows] for column in range(width)]
    counts = [len({path for path in found if path}) for found in hits]
    if not any(counts):
        raise ValueError(f"{name} names none of the images in any of its {width} columns{_show(table.columns)}")
    file = _choose_file(counts, rows)
    named = [(path, row) for path, row in zip(hits[file], rows, strict=True) if path]
    told = hits[file][0] is None  # whether the first line names the columns
    head = rows[0] if told else table.columns or tuple(f"column {column + 1}" for column in range(width))
    others = [column for column in range(width) if column != file]
    split = next((column for column in others if _tells_splits(row[column] for _, row in named)), None)
    kept = [column for column in others if column != split]
    marked = _read_marks([row for _, row in named], kept, head)
    label = None if marked else _choose_label(kept, head, name)
    classes: dict[str, str] = {}
    parts: dict[str, dict[str, None]] = {part: {} for part in SPLITS}
    for number, (path, row) in enumerate(named):
        kind = normalise_name(row[label] if label is not None else marked[number])
        if not kind:
            continue
        if classes.setdefault(path, kind) != kind:
            raise ValueError(f"{name} says that {path} is {classes[path]} and {kind}: delete one of the two lines")
        for part in find_parts(row[split]) if split is not None else ():
            parts[part][classes[path]] = None
    lines = len(table.rows) - told
    by = head[label] if label is not None else f"the one of {len(kept)} columns that is 1"
    log.info("%s: files by %s, classes by %s", name, head[file] or f"column {file + 1}", by)
    if lines > len(named):
        log.warning("%d of the %d lines of %s name no image, or more than one", lines - len(named), lines, name)
    return Labels(classes, {part: list(labels) for part, labels in parts.items()})


def group_labelled(images: Sequence[ImageFile], labels: Mapping[str, str]) -> dict[str, list[ImageFile]]:
    """Group the images that have a class by their class."""
    classes: dict[str, list[ImageFile]] = defaultdict(list)
    for file in images:
        if file.path in labels:
            classes[labels[file.path]].append(file)
    return dict(sorted(classes.items()))


def _choose_file(counts: Sequence[int], rows: Sequence[Row]) -> int:
    """Choose the column of the files: that which names most images; of two, the one with endings or the later one.

    The first may be the numbers of the rows, which images may be called as well.
    """
    most = [column for column, count in enumerate(counts) if count == max(counts)]
    return max(most, key=lambda column: (any(is_image(row[column]) for row in rows), column))


def _read_marks(rows: Sequence[Row], columns: Sequence[int], head: Row) -> list[str]:
    """Read a table with a column for each class, of which each row has a single 1; none if it is no such table."""
    found = []
    for row in rows if len(columns) > 1 else ():
        ones = [column for column in columns if row[column] in ("1", "1.0")]
        if len(ones) != 1 or any(row[column] not in ("0", "0.0") for column in columns if column != ones[0]):
            return []
        found.append(head[ones[0]])
    return found


def _tells_splits(values: Iterable[str]) -> bool:
    found = {value: find_parts(value) for value in values}
    return bool(found) and all(len(parts) == 1 for parts in found.values())


def _choose_label(columns: Sequence[int], head: Row, name: str) -> int:
    """Choose the column of the classes among those that are neither files nor splits."""
    if len(columns) == 1:
        return columns[0]
    words = {head[column].casefold(): column for column in columns}
    found = next((words[word] for word in LABEL_WORDS if word in words), None)
    if found is None:
        raise ValueError(
            f"{name} has the columns {', '.join(head)}, and it is not clear which of them tells the classes: call it "
            "label in the first line"
        )
    return found


def _show(columns: Row) -> str:
    return f": {', '.join(columns)}" if columns else ""
