"""Zip and tar archives, read in place and never unpacked."""

from __future__ import annotations

import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

from metarun.data.files import image_file
from metarun.data.files.image_file import ImageFile, is_hidden
from metarun.data.files.stream import Stream

ZIPS = (".zip",)
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ENDINGS = (*ZIPS, *TARS)
DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError)

PACKED_BY = {
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"(\xb5/\xfd": "packed by zstd",
    b"\x1f\x8b": "packed by gzip",
}
"""How files begin that are to be unpacked first."""


def is_archive(name: str) -> bool:
    return name.lower().endswith(ENDINGS)


def list_members(path: Path) -> list[ImageFile]:
    """List the files in an archive, without hidden files and links that lead elsewhere.

    Raises: ValueError if it is none, it is damaged, or it names a file outside the archive.
    """
    if not zipfile.is_zipfile(path) and not path.name.lower().endswith(ZIPS) and tarfile.is_tarfile(path):
        return _list_tar(path)
    archive = open_zip(path)
    return [
        ImageFile(member.filename, partial(_read_member, archive, member), partial(archive.open, member))
        for member in archive.infolist()
        if not member.is_dir() and not stat.S_ISLNK(member.external_attr >> 16) and not is_hidden(member.filename)
    ]


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip archive.

    Raises: ValueError if it is none, its table of contents is damaged, or it names a file outside the archive.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(_explain_no_archive(path, error)) from error
    for member in archive.infolist():
        _check_name(path, member.orig_filename)  # as stored; zipfile cleans `filename` on some systems
    return archive


def _list_tar(path: Path) -> list[ImageFile]:
    """List the files of a tar archive; one that is compressed as a whole is read from its beginning to its end."""
    try:
        with tarfile.open(path) as tar:
            members = {one.name: (place, one) for place, one in enumerate(tar) if one.isfile() or one.islnk()}
            packed = not isinstance(tar.fileobj, io.BufferedReader)
    except DAMAGE as error:
        raise ValueError(f"{path} is not a whole tar archive ({error}); get it again") from error
    size = max((place for place, _ in members.values()), default=-1) + 1
    stream = Stream(partial(_read_in_order, path), size)
    found = []
    for name, (_, member) in members.items():
        _check_name(path, name)
        place, target = members.get(member.linkname, (0, None)) if member.islnk() else members[name]
        name = name.removeprefix("./")
        if target is None or not target.isfile() or is_hidden(name):
            continue
        read = partial(_read_packed, stream, place, target) if packed else partial(_read_piece, path, target)
        order = (str(path), place) if packed else ("", 0)
        found.append(ImageFile(name, read, partial(_open_member, path, target), order))
    return found


def _read_in_order(path: Path) -> Iterator[bytes]:
    """Yield the content of each member; nothing for what is no file or too large for an image."""
    with tarfile.open(path) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() and member.size <= image_file.MAX_BYTES else None
            yield file.read() if file else b""


def _open_member(path: Path, member: tarfile.TarInfo) -> IO[bytes]:
    file = tarfile.open(path).extractfile(member)  # noqa: SIM115 - it is open as long as its member
    assert file is not None
    return file


def _read_piece(path: Path, member: tarfile.TarInfo) -> bytes:
    with open(path, "rb") as file:
        file.seek(member.offset_data)
        return image_file.read_at_most(file, member.size)


def _read_packed(stream: Stream[bytes], place: int, member: tarfile.TarInfo) -> bytes:
    image_file.check_size(member.size)
    return stream.get(place)


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    with archive.open(member) as file:
        return image_file.read_at_most(file)


def _check_name(path: Path, name: str) -> None:
    if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or name[1:2] == ":":
        raise ValueError(f"{path} holds a file named {name!r}, which leads out of it; do not trust this archive")


def _explain_no_archive(path: Path, error: Exception) -> str:
    with open(path, "rb") as file:
        start = file.read(4)
    kind = next((kind for beginning, kind in PACKED_BY.items() if start.startswith(beginning)), None)
    if kind and not (kind.endswith("gzip") and path.name.lower().endswith(TARS)):
        return f"{path} is {kind}: unpack it into a folder, and set data.path=FOLDER"
    if start.startswith(b"PK"):
        return f"{path} is not a whole zip file ({error}); get it again"
    return f"{path} is neither a folder nor an archive: give a folder, or a zip or tar file, of images"
