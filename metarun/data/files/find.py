"""The image files of a folder or a zip archive. An archive is read in place and never unpacked."""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".avif", ".jp2")
HIDDEN = (".", "__MACOSX")
"""Beginnings of the names of files and folders that are left out."""


class ImageFile(NamedTuple):
    """An encoded image: its path inside the folder or archive, with slashes, and a function that reads its bytes."""

    path: str
    read: Callable[[], bytes]


def list_images(place: Path) -> list[ImageFile]:
    """List all images in a folder or zip file, in the order of their paths, without hidden files and folders.

    Links in a folder are followed, since its owner made them; links in an archive are not.
    Raises: ValueError if `place` is neither, or the archive is damaged or holds a name that leads out of it.
    """
    if place.is_dir():
        found = [ImageFile(name, Path(entry.path).read_bytes) for name, entry in _walk(place)]
    elif place.is_file():
        archive = open_zip(place)
        found = [
            ImageFile(member.filename, partial(archive.read, member))
            for member in archive.infolist()
            if not stat.S_ISLNK(member.external_attr >> 16) and _is_image(member.filename)
        ]
    else:
        raise ValueError(f"there is no folder or zip file {place}")
    return sorted(found, key=lambda file: file.path)


def group_by_class(labelled: Iterable[tuple[str, ImageFile]]) -> dict[str, list[ImageFile]]:
    """Group files by their class, each class's in the order of their own names, wherever they lie."""
    classes: dict[str, list[ImageFile]] = defaultdict(list)
    for label, file in labelled:
        classes[label].append(file)
    return {label: sorted(files, key=lambda file: file.path.split("/")[-1]) for label, files in classes.items()}


def find_places(root: Path, name: str) -> list[Path]:
    """Find a data set under `root`: NAME.zip, or the zip files in the folder NAME, or that folder, or nothing."""
    if (root / f"{name}.zip").is_file():
        return [root / f"{name}.zip"]
    folder = root / name
    if not folder.is_dir():
        return []
    return sorted(folder.glob("*.zip")) or ([folder] if next(_walk(folder), None) else [])


def make_stamp(places: Sequence[Path]) -> str:
    """Make a hash that changes when an image file is added, removed or written; an archive counts as one file."""
    digest = hashlib.sha256()
    for place in places:
        entries = _walk(place) if place.is_dir() else [(place.name, place)]
        files = sorted((name, (stat := entry.stat()).st_size, stat.st_mtime_ns) for name, entry in entries)
        digest.update(repr(files).encode())
    return digest.hexdigest()


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip archive.

    Raises: ValueError if its table of contents is damaged or names a file outside the archive.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path} is not a whole zip file ({error}); get it again") from error
    for member in archive.infolist():
        name = member.orig_filename  # as stored; zipfile cleans `filename` on some systems
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or name[1:2] == ":":
            raise ValueError(f"{path} holds a file named {name!r}, which leads out of it; do not trust this archive")
    return archive


def _walk(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield the path inside `root`, with slashes, and the directory entry of each image file under it."""
    folders: list[tuple[str, str, tuple[str, ...]]] = [(str(root), "", (os.path.realpath(root),))]
    while folders:
        folder, prefix, above = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    real = os.path.realpath(entry.path)
                    if not entry.name.startswith(HIDDEN) and real not in above:  # a link upwards would never end
                        folders.append((entry.path, f"{prefix}{entry.name}/", (*above, real)))
                elif _is_image(entry.name):
                    yield f"{prefix}{entry.name}", entry


def _is_image(path: str) -> bool:
    hidden = any(part.startswith(HIDDEN) for part in path.split("/"))
    return not hidden and path.lower().endswith(SUFFIXES)
