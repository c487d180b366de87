"""Tables that people keep beside their images: which file is of which class, which class is of which split."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from metarun.data.files.image_file import ImageFile
from metarun.data.files.rows import read_rows

ENDINGS = (".csv", ".tsv", ".txt", ".json", ".jsonl")

Row = tuple[str, ...]


class ImageIndex:
    """Finds images by what tables call them: a path from anywhere above the images, with its ending or without."""

    def __init__(self, images: Sequence[ImageFile]) -> None:
        self._found: dict[str, set[str]] = defaultdict(set)
        for file in images:
            path = PurePosixPath(file.path)
            for form in {path, path.with_suffix("")}:
                for first in range(len(form.parts)):
                    self._found["/".join(form.parts[first:])].add(file.path)

    def find(self, name: str) -> str | None:
        """Return the path of the image that `name` names; None if that is none, or not clear."""
        parts = PurePosixPath(name.replace("\\", "/")).parts
        for first in range(len(parts)):
            if found := self._found.get("/".join(parts[first:])):
                return next(iter(found)) if len(found) == 1 else None
        return None


class Table(NamedTuple):
    """The rows of a table, and the names of its columns if its first line or its form tells them."""

    rows: list[Row]
    columns: Row


def read_table(data: bytes, name: str) -> Table:
    """Read the rows of a table in CSV, TSV, JSON, lines of JSON or lines of a file and its class.

    Of COCO's JSON, a row is an image that has objects of one kind alone. A first line that names the columns is among
    the rows: whether it does is seen when images are looked for.
    Raises: ValueError if it is no such table.
    """
    if not name.lower().endswith(ENDINGS):
        raise ValueError(f"{name} is no table of those that are read: save it as one of {', '.join(ENDINGS)}")
    try:
        text = data.decode("utf-8-sig")
        if name.lower().endswith(".jsonl"):
            return _read_json([json.loads(line) for line in text.splitlines() if line.strip()])
        if name.lower().endswith(".json"):
            return _read_json(json.loads(text))
    except ValueError as error:
        raise ValueError(f"{name} cannot be read: {error}") from error
    if name.lower().endswith(".txt"):
        lines = (line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))
        return Table([tuple(line.split(maxsplit=1)) for line in lines], ())
    signs = "\t" if name.lower().endswith(".tsv") else max(",;\t", key=text.partition("\n")[0].count)
    rows = [tuple(cell.strip() for cell in row) for row in read_rows(text, signs, name) if row]
    return Table(rows, rows[0] if rows else ())


def _read_json(content: Any) -> Table:
    if isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys():
        return _read_coco(content)
    if isinstance(content, dict) and {"image_names", "image_labels"} <= content.keys():  # of CloserLookFewShot
        names = content.get("label_names", [])
        labels = [names[label] if label in range(len(names)) else label for label in content["image_labels"]]
        return Table([(str(f), str(label)) for f, label in zip(content["image_names"], labels, strict=True)], ())
    if isinstance(content, dict) and "class_names" in content:  # of easyfsl
        return Table([(str(name),) for name in content["class_names"]], ())
    if isinstance(content, dict):
        return Table([(name, str(label)) for name, label in content.items() if isinstance(label, str | int)], ())
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        columns = tuple(map(str, content[0]))
        return Table([tuple(str(row.get(name, "")) for name in columns) for row in content], columns)
    if isinstance(content, list):
        return Table([(str(name),) for name in content], ())
    raise ValueError("it is no list and no table")


def _read_coco(content: dict[str, Any]) -> Table:
    names = {one["id"]: str(one.get("name", one["id"])) for one in content["categories"]}
    kinds: dict[Any, set[str]] = defaultdict(set)
    for one in content["annotations"]:
        kinds[one["image_id"]].add(names.get(one["category_id"], ""))
    alone = [(str(one["file_name"]), *kinds[one["id"]]) for one in content["images"] if len(kinds[one["id"]]) == 1]
    return Table(alone, ("file_name", "category"))
