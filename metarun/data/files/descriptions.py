"""Files with a vector for each class: attributes, or embeddings of the classes' names by a text encoder."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from metarun.core.episodes import Floats
from metarun.data.files.rows import read_rows
from metarun.data.files.split_file import normalise_name

DELIMITERS = {".csv": ",", ".tsv": "\t"}

UNREADABLE = (OSError, UnicodeDecodeError, zipfile.BadZipFile, EOFError, zlib.error)


def read_descriptions(path: str, setting: str = "data.descriptions=") -> dict[str, Floats]:
    """Read a table of classes: NAME,number,number,... in each line of a .csv file, or tabs in a .tsv file.

    A .npz file has the arrays `names` [C] and `vectors` [C, D].

    Args:
        setting: what messages write before the path.
    Returns: vectors [D] by the normalised names of classes.
    Raises: ValueError if there is no such file, it is damaged or of another kind, a class comes twice, or vectors have
        several lengths or no numbers.
    """
    file = Path(path).expanduser()
    if file.suffix not in (".npz", *DELIMITERS):
        raise ValueError(f"{setting}{path} must be a .csv, .tsv or .npz file of descriptions")
    if not file.is_file():
        raise ValueError(f"{setting}{path} is not there")
    try:
        names, vectors = _read_arrays(file) if file.suffix == ".npz" else _read_table(file)
    except UNREADABLE as error:
        raise ValueError(f"{setting}{path} cannot be read: {error}") from error
    lengths = {len(vector) for vector in vectors}
    if len(lengths) != 1 or 0 in lengths or not all(np.isfinite(vector).all() for vector in vectors):
        raise ValueError(f"the descriptions in {path} must be vectors of one length, of finite numbers")
    named = dict(zip(names, vectors, strict=True))
    if len(named) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise ValueError(f"{path} describes the class '{twice}' twice: delete one of the two")
    return named


def find_descriptions(path: str, names: Iterable[str], source: str) -> dict[str, Floats]:
    """Read the vectors of the classes `names` of a source from such a file. Raises: ValueError if it lacks some, too.

    Names that differ only in how their letters are composed, or in blanks at an end, are of the same class.
    """
    known, order = read_descriptions(path), list(names)
    found = {name: known[normalise_name(name)] for name in order if normalise_name(name) in known}
    check_described(found, order, f"classes of {source} have no description in {path}")
    return found


def check_described(known: Mapping[str, Floats], names: Iterable[str], what: str) -> None:
    """Raise ValueError that says `what`, if some of the classes `names` are not known."""
    if lacking := sorted(set(names) - known.keys()):
        raise ValueError(f"{len(lacking)} {what}: {', '.join(lacking[:3])}")


def _read_arrays(file: Path) -> tuple[list[str], Sequence[Floats]]:
    if not zipfile.is_zipfile(file):
        raise zipfile.BadZipFile("it is not a whole .npz file")
    with np.load(file, allow_pickle=False) as arrays:
        if {"names", "vectors"} - set(arrays.files):
            raise ValueError(f"{file} must have the arrays names and vectors; it has {', '.join(arrays.files)}")
        try:
            names, vectors = arrays["names"], arrays["vectors"]
        except ValueError as error:  # Python's own objects, which are not read
            raise zipfile.BadZipFile(str(error)) from error
    fit = names.dtype.kind == "U" and vectors.dtype.kind in "fiu" and vectors.ndim == 2
    if not fit or names.shape != vectors.shape[:1]:
        shapes = f"names {names.dtype} {list(names.shape)} and vectors {vectors.dtype} {list(vectors.shape)}"
        raise ValueError(f"{file} must have texts as names [C] and numbers as vectors [C, D]; it has {shapes}")
    return [normalise_name(name) for name in names.tolist()], vectors.astype(np.float64)


def _read_table(file: Path) -> tuple[list[str], Sequence[Floats]]:
    text = file.read_bytes().decode("utf-8-sig")
    rows = [row for row in read_rows(text, DELIMITERS[file.suffix], str(file)) if row]
    return [normalise_name(row[0]) for row in rows], [_read_numbers(file, row) for row in rows]


def _read_numbers(file: Path, row: list[str]) -> Floats:
    try:
        return np.array([float(word) for word in row[1:]])
    except ValueError:
        raise ValueError(f"{file} has a word among the numbers of {row[0]}: NAME,number,number,...") from None
