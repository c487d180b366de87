"""Files with a vector for each class: attributes, or embeddings of the classes' names by a text encoder."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from metarun.core.episodes import Floats


def read_descriptions(path: str) -> dict[str, Floats]:
    """Read a table of classes: NAME,number,number,... in each line of a .csv file, or tabs in a .tsv file.

    A .npz file has the arrays `names` [C] and `vectors` [C, D].
    Raises: ValueError if there is no such file, it is of another kind, or vectors have several lengths or no numbers.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"data.descriptions={path} is not there")
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as arrays:
            if {"names", "vectors"} - set(arrays.files):
                raise ValueError(f"{path} must have the arrays names and vectors; it has {', '.join(arrays.files)}")
            named = dict(zip(arrays["names"].tolist(), arrays["vectors"], strict=True))
    elif file.suffix in (".csv", ".tsv"):
        with file.open(newline="", encoding="utf-8") as lines:
            rows = [row for row in csv.reader(lines, delimiter="," if file.suffix == ".csv" else "\t") if row]
        named = {row[0]: _read_numbers(path, row) for row in rows}
    else:
        raise ValueError(f"data.descriptions={path} must be a .csv, .tsv or .npz file")
    lengths = {len(vector) for vector in named.values()}
    if len(lengths) != 1 or 0 in lengths or not all(np.isfinite(vector).all() for vector in named.values()):
        raise ValueError(f"the descriptions in {path} must be vectors of one length, of finite numbers")
    return {name: np.asarray(vector, np.float64) for name, vector in named.items()}


def find_descriptions(path: str, names: Iterable[str]) -> dict[str, Floats]:
    """Read the vectors of the classes `names` from such a file. Raises: ValueError if it lacks some, too."""
    known = read_descriptions(path)
    check_described(known, names, f"classes have no description in {path}")
    return known


def check_described(known: Mapping[str, Floats], names: Iterable[str], what: str) -> None:
    """Raise ValueError that says `what`, if some of the classes `names` are not known."""
    if lacking := sorted(set(names) - known.keys()):
        raise ValueError(f"{len(lacking)} {what}: {', '.join(lacking[:3])}")


def _read_numbers(path: str, row: list[str]) -> Floats:
    try:
        return np.array([float(word) for word in row[1:]])
    except ValueError:
        raise ValueError(f"{path} has a word among the numbers of {row[0]}: NAME,number,number,...") from None
