"""Archives in a folder; those of WebDataset, in which KEY.cls tells the class of KEY.png."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from metarun.data.files.archives import is_archive, list_members
from metarun.data.files.image_file import ImageFile, is_image
from metarun.data.files.labelled import Labelled
from metarun.data.files.split_words import find_parts


def open_archives(place: Path, files: Sequence[ImageFile]) -> list[ImageFile]:
    """List what the archives in a folder hold, as `ARCHIVE/PATH`."""
    return [
        member._replace(path=f"{file.path}/{member.path}")
        for file in files
        if place.is_dir() and is_archive(file.path)
        for member in list_members(place / file.path)
    ]


def read_classes(files: Sequence[ImageFile]) -> list[Labelled]:
    """Take the images whose classes stand in files .cls beside them; none if one of the images has no such file."""
    told = {file.path.removesuffix(".cls"): file for file in files if file.path.endswith(".cls")}
    if not told:
        return []
    images = [(file, told.get(_find_key(file.path))) for file in files if is_image(file.path)]
    if not all(label for _, label in images):
        return []
    return [Labelled("", label.read().decode("utf-8", "replace").strip(), file) for file, label in images if label]


def join_archives(files: Sequence[ImageFile]) -> list[ImageFile]:
    """Return the files of `open_archives` as if all lay in one folder, each archive unpacked beside the others.

    One that is named after a split, or holds images that lie in no folder, as cat.zip beside dog.zip, is unpacked into
    a folder of its name; but not archives that are numbered.
    """
    stems = {file.path: Path(_cut_archive(file.path)[0]).name.partition(".")[0] for file in files}
    several = len(set(stems.values())) > 1
    numbered = len({re.sub(r"\d+", "", stem) for stem in stems.values()}) < len(set(stems.values()))
    joined = []
    for file in files:
        stem, path = stems[file.path], _cut_archive(file.path)[1]
        kept = (find_parts(stem) and not path.startswith(f"{stem}/")) or ("/" not in path and several and not numbered)
        joined.append(file._replace(path=f"{stem}/{path}" if kept else path))
    return joined


def _cut_archive(path: str) -> tuple[str, str]:
    parts = path.split("/")
    end = next(number for number, part in enumerate(parts) if is_archive(part)) + 1
    return "/".join(parts[:end]), "/".join(parts[end:])


def _find_key(path: str) -> str:
    """Return the path without all of its endings."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name.partition('.')[0]}"
