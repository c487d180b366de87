"""Files that are written whole or not at all, even through a power cut."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the place of `path` when the block ends; after an error nothing has happened.

    Whoever reads `path` finds the old content or the new. The new one is on the disk before it takes its place.
    Raises: OSError if it cannot be written.
    """
    with whole_file(path) as aside, open(aside, "wb") as file:
        yield file


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """As `written_whole`, for what writes to a path: yields that of a file beside `path`, named `path.PID.part`."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield aside
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
        _sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` to `path`, whole or not at all. Raises: OSError if it cannot be written."""
    with written_whole(path) as file:
        file.write(f"{json.dumps(content, indent=1)}\n".encode())


def _sync_folder(folder: Path) -> None:
    """Bring a folder's list of names to the disk, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
