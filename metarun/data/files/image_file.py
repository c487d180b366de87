"""An encoded image, wherever it lies: in a file, in a member of an archive, in a row of a packed file."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, NamedTuple

SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
    ".pbm", ".pnm", ".avif", ".jp2", ".j2k", ".tga",
)  # fmt: skip
PACKED = (".pkl", ".pickle", ".npz", ".parquet")
"""Endings of files that hold many images."""

HIDDEN = (
    ".", "__MACOSX", "@eaDir", "@Recycle", "#recycle", "#snapshot", "$RECYCLE.BIN", "System Volume Information",
    "lost+found",
)  # fmt: skip
"""Beginnings of the names of files and folders that are left out: systems and network drives made them, nobody else."""

MAX_BYTES = 2**28
"""Bytes that a file of an image may have, unpacked."""


class ImageFile(NamedTuple):
    """An encoded image, or another file of a folder or an archive.

    Attributes:
        path: inside the folder or archive, with slashes; `FILE:ROW` in a packed file.
        read: reads its bytes.
        open: opens it, if it is a file.
        order: what it is read from, and its place there, if that can only be read from its beginning to its end.
    """

    path: str
    read: Callable[[], bytes]
    open: Callable[[], IO[bytes]] | None = None
    order: tuple[str, int] = ("", 0)


def is_image(path: str) -> bool:
    return path.lower().endswith(SUFFIXES)


def is_packed(path: str) -> bool:
    return path.lower().endswith(PACKED)


def is_hidden(path: str) -> bool:
    return any(part.startswith(HIDDEN) for part in path.split("/"))


def read_at_most(file: IO[bytes], size: int = -1) -> bytes:
    """Read a file, or `size` bytes of it. Raises: ValueError if they are more than `MAX_BYTES`, whatever is said."""
    data = file.read(min(size, MAX_BYTES + 1) if size >= 0 else MAX_BYTES + 1)
    check_size(len(data))
    return data


def check_size(size: int) -> None:
    """Raises: ValueError if an image has more than `MAX_BYTES` bytes."""
    if size > MAX_BYTES:
        raise ValueError(f"has more than {MAX_BYTES >> 20} MiB, too many for an image")
