"""The files of a folder or a zip archive. An archive is read in place and never unpacked."""

from __future__ import annotations

import hashlib
import os
import shlex
import stat
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
    ".pbm", ".pnm", ".avif", ".jp2", ".j2k", ".tga",
)  # fmt: skip
HIDDEN = (
    ".", "__MACOSX", "@eaDir", "@Recycle", "#recycle", "#snapshot", "$RECYCLE.BIN", "System Volume Information",
    "lost+found",
)  # fmt: skip
"""Beginnings of the names of files and folders that are left out: systems and network drives made them, nobody else."""

MAX_BYTES = 2**28
"""Bytes that a file of an image may have, unpacked."""

STAMPED_BYTES, STAMPED_FILES = 2**28, 10_000
"""Content and number of files up to which a stamp depends on their content: a fraction of a second."""

ARCHIVES = {
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"(\xb5/\xfd": "packed by zstd",
    b"\x1f\x8b": "packed by gzip",
}
"""How files begin that are to be unpacked first."""


class ImageFile(NamedTuple):
    """An encoded image: its path inside the folder or archive, with slashes, and a function that reads its bytes."""

    path: str
    read: Callable[[], bytes]


def list_images(place: Path) -> list[ImageFile]:
    """List all images in a folder or zip file, as `list_files` does."""
    return [file for file in list_files(place) if is_image(file.path)]


def list_files(place: Path) -> list[ImageFile]:
    """List all files in a folder or zip file, in the order of their paths, without hidden files and folders.

    Links in a folder are followed, since its owner made them; links in an archive are not.
    Raises: ValueError if `place` is neither, the archive is damaged or holds a name that leads out of it, or links of
    the folder lead nowhere.
    """
    if place.is_dir():
        found = [ImageFile(name, partial(read_file, entry.path)) for name, entry in _list_folder(place)]
    elif place.is_file():
        archive = open_zip(place)
        found = [
            ImageFile(member.filename, partial(_read_member, archive, member))
            for member in archive.infolist()
            if not member.is_dir() and not stat.S_ISLNK(member.external_attr >> 16) and not _is_hidden(member.filename)
        ]
    else:
        raise ValueError(f"there is no folder or zip file {place}")
    return sorted(found, key=lambda file: file.path)


def is_image(path: str) -> bool:
    return path.lower().endswith(SUFFIXES)


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
    broken: list[str] = []
    holds_images = any(is_image(name) for name, _ in _walk(folder, broken)) or broken  # which is told when it is read
    return sorted(folder.glob("*.zip")) or ([folder] if holds_images else [])


def make_stamp(places: Sequence[Path]) -> str:
    """Make a hash that changes when an image file is added, removed or written.

    Of an archive it depends on the checksums of its members too, and of a folder with less than `STAMPED_BYTES` on the
    content of the files: others of equal size and time are seen. Of larger ones it depends on sizes and times alone.
    """
    digest = hashlib.sha256()
    for place in places:
        listed = _list_folder(place) if place.is_dir() else [(place.name, place)]
        entries = [(name, entry) for name, entry in listed if place.is_file() or is_image(name)]
        files = sorted((name, (stat := entry.stat()).st_size, stat.st_mtime_ns) for name, entry in entries)
        digest.update(repr(files).encode())
        if zipfile.is_zipfile(place):
            digest.update(repr([(member.filename, member.CRC) for member in open_zip(place).infolist()]).encode())
        elif len(files) <= STAMPED_FILES and sum(size for _, size, _ in files) <= STAMPED_BYTES:
            for _, entry in sorted(entries, key=lambda pair: pair[0]):
                digest.update(hashlib.sha256(Path(entry).read_bytes()).digest())
    return digest.hexdigest()


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip archive.

    Raises: ValueError if it is none, its table of contents is damaged, or it names a file outside the archive.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(_explain_no_zip(path, error)) from error
    for member in archive.infolist():
        name = member.orig_filename  # as stored; zipfile cleans `filename` on some systems
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or name[1:2] == ":":
            raise ValueError(f"{path} holds a file named {name!r}, which leads out of it; do not trust this archive")
    return archive


def _explain_no_zip(path: Path, error: Exception) -> str:
    with open(path, "rb") as file:
        start = file.read(4)
    kind = next((kind for beginning, kind in ARCHIVES.items() if start.startswith(beginning)), None)
    if tarfile.is_tarfile(path):
        return (
            f"{path} is a tar archive, which cannot be read in place: unpack it, as with\n"
            f"    mkdir FOLDER && tar -xf {shlex.quote(str(path))} -C FOLDER\nand set data.path=FOLDER"
        )
    if kind:
        return f"{path} is {kind}: unpack it into a folder, and set data.path=FOLDER"
    if start.startswith(b"PK"):
        return f"{path} is not a whole zip file ({error}); get it again"
    return f"{path} is neither a folder nor a zip file: give a folder, or a zip file, of images"


def read_file(path: str) -> bytes:
    """Read an image file whole. Raises: ValueError if it is too large for one."""
    with open(path, "rb") as file:
        return _read_at_most(file)


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    with archive.open(member) as file:
        return _read_at_most(file)


def _read_at_most(file: IO[bytes]) -> bytes:
    """Read a file whole. Raises: ValueError if it has more than `MAX_BYTES` bytes, whatever is said of its size."""
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"has more than {MAX_BYTES >> 20} MiB, too many for an image")
    return data


def _list_folder(root: Path) -> list[tuple[str, os.DirEntry[str]]]:
    """List what `_walk` yields. Raises: ValueError if links of classes or images lead nowhere."""
    broken: list[str] = []
    found = list(_walk(root, broken))
    if broken:
        name = min(broken)
        target = os.readlink(root / name)
        raise ValueError(
            f"{root} holds {len(broken)} links that lead nowhere, {name} -> {target} among them: get their content "
            "(git annex get, dvc pull), or remove them"
        )
    return found


def _walk(root: Path, broken: list[str]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield the path inside `root`, with slashes, and the directory entry of each file under it.

    Args:
        broken: links that lead nowhere are added here, if an image or a folder of images may belong there.
    """
    folders: list[tuple[str, str, tuple[str, ...]]] = [(str(root), "", (os.path.realpath(root),))]
    while folders:
        folder, prefix, above = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            raise ValueError(f"cannot read the folder {folder}: {error.strerror}") from error
        for entry in entries:
            if entry.name.startswith(HIDDEN):
                continue
            if entry.is_symlink() and not os.path.exists(entry.path):
                if is_image(entry.name) or "." not in entry.name:
                    broken.append(f"{prefix}{entry.name}")
            elif entry.is_dir():
                real = os.path.realpath(entry.path)
                if real not in above:  # a link upwards would never end
                    folders.append((entry.path, f"{prefix}{entry.name}/", (*above, real)))
            elif entry.is_file():  # no pipe, which would never end
                yield f"{prefix}{entry.name}", entry


def _is_hidden(path: str) -> bool:
    return any(part.startswith(HIDDEN) for part in path.split("/"))
