"""A class split in somebody's own file: lines `train CLASS`, or a list of classes for each of train, val and test."""

from __future__ import annotations

import codecs
import logging
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from metarun.core.whole import write_bytes
from metarun.data.files.split_words import find_parts
from metarun.data.files.splits import SPLITS

UNSEEN = dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u00ad\u200e\u200f"))
"""Characters without a width that come along when names are copied; the joiners of some scripts are none of them."""

log = logging.getLogger(__name__)


def normalise_name(name: str) -> str:
    """Return the name of a class as people read it: letters composed, single blanks, none at an end, none unseen.

    Classes whose names differ otherwise only by that are the same.
    """
    return " ".join(unicodedata.normalize("NFC", name.translate(UNSEEN)).split())


def read_split_file(path: Path) -> dict[str, list[str]]:
    """Read a split from a file of lines `train CLASS`, or from train.txt, val.txt and test.txt in a folder.

    The files in a folder hold one class in each line. Blank lines and lines that begin with # are left out.
    Returns: the normalised names of the classes of each split, in their order: tasks depend on it.
    Raises: ValueError if it cannot be read, a line is malformed, or a class comes twice.
    """
    split: dict[str, list[str]] = {part: [] for part in SPLITS}
    seen: dict[str, str] = {}
    for place, part, label in _read_folder(path) if path.is_dir() else _read_file(path):
        if label in seen:
            raise ValueError(
                f"{place} names the class '{label}', which is in {seen[label]}: a class belongs to one split, once. "
                "Delete one of the two lines"
            )
        seen[label] = f"{part}, by {place}"
        split[part].append(label)
    return {part: sorted(labels) for part, labels in split.items()}


def write_split_file(path: Path, split: Mapping[str, Sequence[str]]) -> None:
    """Write a file that `read_split_file` reads, whole or not at all. Raises: ValueError if it cannot be written."""
    lines = (f"{part} {normalise_name(label)}\n" for part in SPLITS for label in split[part])
    try:
        write_bytes(path, "".join(lines).encode())
    except OSError as error:
        raise ValueError(f"cannot write the class split {path}: {error.strerror}. Set data.split=FILE") from error
    log.info("split the classes %s into train, val, test: %s", "/".join(str(len(split[s])) for s in SPLITS), path)


def _read_file(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the place, the part and the class of each line."""
    for place, line in _read_lines(path):
        part, *rest = line.split(maxsplit=1)
        parts = find_parts(part)
        if len(parts) != 1 or not rest:
            raise ValueError(f"{place} is '{line[:60]}', which is not train, val or test and a class's name")
        yield place, parts.pop(), normalise_name(rest[0])


def _read_folder(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the place, the part and the class of each line of the files in a folder that are named after the parts."""
    files = {part: [file for file in sorted(path.glob("*.txt")) if find_parts(file.stem) == {part}] for part in SPLITS}
    for part, found in files.items():
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            raise ValueError(f"the class split {path} must hold one list for {part}, as {part}.txt; there is {names}")
        for place, line in _read_lines(found[0]):
            yield place, part, normalise_name(line)


def _read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each line that counts. Raises: ValueError if the file cannot be read."""
    try:
        data = path.read_bytes()
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as some editors on Windows write
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except OSError as error:
        raise ValueError(f"cannot read the class split {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"cannot read the class split {path}, which is not UTF-8 ({error}): save it as UTF-8"
        ) from error
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if line.strip() and not line.startswith("#"):
            yield f"line {number} of {path}", line.strip()
