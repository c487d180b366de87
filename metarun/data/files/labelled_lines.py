"""Lines of text with a label each: a folder with a text file for each class, or a table with two columns."""

from __future__ import annotations

from pathlib import Path

from metarun.data.files.rows import read_rows
from metarun.data.files.split_file import normalise_name

COLUMNS = ("label", "text")
TABLES = {".csv": ",", ".tsv": "\t"}


def read_lines(place: Path) -> dict[str, list[str]]:
    """Read the samples of each class, sorted by the classes' names; blank lines are none.

    Args:
        place: a folder of files CLASS.txt, a sample in each line, or a table .csv or .tsv whose first line names the
            columns `label` and `text`, among others.
    Raises: ValueError if it is neither, a file is not UTF-8, or there are no samples.
    """
    if not place.exists():
        raise ValueError(f"data.path={place} is not there")
    try:
        found = _read_folder(place) if place.is_dir() else _read_table(place)
    except UnicodeDecodeError as error:
        raise ValueError(f"data.path={place}: a file is not UTF-8 ({error}): save it as UTF-8") from error
    if not found:
        raise ValueError(f"data.path={place} has no samples: it wants files CLASS.txt, a sample per line, or a table")
    return dict(sorted(found.items()))


def _read_folder(place: Path) -> dict[str, list[str]]:
    classes: dict[str, list[str]] = {}
    for file in sorted(place.glob("*.txt")):
        lines = [line.strip() for line in file.read_text("utf-8-sig").splitlines()]
        if kept := [line for line in lines if line]:
            classes[normalise_name(file.stem)] = kept
    return classes


def _read_table(place: Path) -> dict[str, list[str]]:
    if place.suffix not in TABLES:
        raise ValueError(f"data.path={place} is neither a folder nor a table: {', '.join(TABLES)}")
    classes: dict[str, list[str]] = {}
    text = place.read_bytes().decode("utf-8-sig")
    found = read_rows(text, TABLES[place.suffix], f"data.path={place}", long=True)
    heads, *rows = [row for row in found if row] or [[]]
    if lacking := [name for name in COLUMNS if name not in heads]:
        raise ValueError(f"data.path={place} has no column {lacking[0]}; its first line must name label and text")
    label, sample = map(heads.index, COLUMNS)
    for row in rows:
        if len(row) > max(label, sample) and row[label] and row[sample].strip():
            classes.setdefault(normalise_name(row[label]), []).append(row[sample].strip())
    return classes
