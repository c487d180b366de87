"""The files of a folder or an archive, and where under a folder a data set lies."""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath

from metarun.data.files.archives import ENDINGS, ZIPS, is_archive, list_members, open_zip
from metarun.data.files.image_file import HIDDEN, ImageFile, is_image, is_packed, read_at_most

STAMPED_BYTES, STAMPED_FILES = 2**28, 10_000
"""Content and number of files up to which a stamp depends on their content: a fraction of a second."""


def list_images(place: Path) -> list[ImageFile]:
    """List all images in a folder or archive, as `list_files` does."""
    return [file for file in list_files(place) if is_image(file.path)]


def list_files(place: Path) -> list[ImageFile]:
    """List all files in a folder or archive, in the order of their paths, without hidden files and folders.

    Links in a folder are followed, since its owner made them; links in an archive are not.
    Raises: ValueError if `place` is neither, the archive is damaged or holds a name that leads out of it, or links of
    the folder lead nowhere.
    """
    if place.is_dir():
        found = [_take(name, entry.path) for name, entry in _list_folder(place)]
    elif place.is_file():
        found = [_take(place.name, str(place))] if is_packed(place.name) else list_members(place)
    else:
        address = ": an address is downloaded first" if re.match(r"\w{2,}:/", str(place)) else ""
        raise ValueError(f"there is no folder or archive {place}{address}")
    return sorted(found, key=lambda file: file.path)


def group_by_class(labelled: Iterable[tuple[str, ImageFile]]) -> dict[str, list[ImageFile]]:
    """Group files by their class, each class's in the order of their own names, wherever they lie."""
    classes: dict[str, list[ImageFile]] = defaultdict(list)
    for label, file in labelled:
        classes[label].append(file)
    return {label: sorted(files, key=lambda file: file.path.split("/")[-1]) for label, files in classes.items()}


def find_places(root: Path, *names: str, without: str = "") -> list[Path]:
    """Find a data set under `root` by the first of its names that is there.

    That is an archive NAME.zip, NAME.tar ..., or what the folder NAME holds: its zip files, or the folder if images or
    packed files lie in it, or its tar archives. Names are alike that differ only in capitals and in signs.

    Args:
        without: the name of an archive that is passed over.
    """
    for path in find_alike(root, *names):
        if path.is_file():
            return [path]
        if found := _look_into(path, without):
            return found
    return []


def find_set(root: Path, names: Sequence[str], loose: Sequence[str] = ()) -> list[Path]:
    """Find where a set lies under `root`: under one of its names, or as packed files in `root` itself.

    Args:
        loose: patterns of the names of such files.
    """
    there = sorted(root.iterdir()) if root.is_dir() else []
    return find_places(root, *names) or [path for path in there if any(fnmatch(path.name, one) for one in loose)]


def find_alike(root: Path, *names: str) -> list[Path]:
    """Find the folders and archives in `root` that have one of the names, the likest first."""
    there = sorted(path for path in root.iterdir() if path.is_dir() or is_archive(path.name)) if root.is_dir() else []
    found = []
    for name in names:
        alike = [path for path in there if _simplify(path.name) == _simplify(name)]
        found += sorted(alike, key=lambda path: (_cut_ending(path.name) != name, path.is_dir()))
    return found


def describe_contents(place: Path) -> str:
    """Say what lies in a folder or archive: the number of files of each kind, the most frequent first."""
    try:
        return count_endings([file.path for file in list_files(place)]) or "nothing"
    except ValueError as error:
        return str(error)


def count_endings(paths: Sequence[str]) -> str:
    """Return the number of files of each kind, the most frequent first: 40 .heic, 1 .txt."""
    counts = Counter(PurePosixPath(path).suffix.lower() or "without an ending" for path in paths)
    return ", ".join(f"{count} {ending}" for ending, count in counts.most_common(8))


def find_own(path: str | None) -> list[Path]:
    """Return the file or folder that `data.path` names, if it is there."""
    place = Path(path or "").expanduser()
    return [place] if path and place.exists() else []


def make_stamp(places: Sequence[Path]) -> str:
    """Make a hash that changes when an image file is added, removed or written.

    Of an archive it depends on the checksums of its members too, and of a folder with less than `STAMPED_BYTES` on the
    content of the files: others of equal size and time are seen. Of larger ones it depends on sizes and times alone.
    """
    digest = hashlib.sha256()
    for place in places:
        listed = _list_folder(place) if place.is_dir() else [(place.name, place)]
        entries = [(name, entry) for name, entry in listed if place.is_file() or is_image(name) or is_packed(name)]
        files = sorted((name, (stat := entry.stat()).st_size, stat.st_mtime_ns) for name, entry in entries)
        digest.update(repr(files).encode())
        if zipfile.is_zipfile(place):
            digest.update(repr([(member.filename, member.CRC) for member in open_zip(place).infolist()]).encode())
        elif len(files) <= STAMPED_FILES and sum(size for _, size, _ in files) <= STAMPED_BYTES:
            for _, entry in sorted(entries, key=lambda pair: pair[0]):
                digest.update(hashlib.sha256(Path(entry).read_bytes()).digest())
    return digest.hexdigest()


def read_file(path: str) -> bytes:
    """Read an image file whole. Raises: ValueError if it is too large for one."""
    with open(path, "rb") as file:
        return read_at_most(file)


def _look_into(folder: Path, without: str) -> list[Path]:
    broken: list[str] = []
    archives = sorted(path for path in folder.iterdir() if is_archive(path.name) and path.name != without)
    if zips := [path for path in archives if path.name.lower().endswith(ZIPS)]:
        return zips
    holds = any(is_image(name) or is_packed(name) for name, _ in _walk(folder, broken)) or broken  # told when read
    return [folder] if holds else archives


def _simplify(name: str) -> str:
    return re.sub(r"[\W_]", "", _cut_ending(name).casefold())


def _cut_ending(name: str) -> str:
    ending = next((ending for ending in ENDINGS if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)]


def _take(name: str, path: str) -> ImageFile:
    return ImageFile(name, partial(read_file, path), lambda: Path(path).open("rb"))


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
