"""Write files and folders whole or not at all, even if the power fails."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from metarun.core.errors import ConfigError

UNFINISHED = "*.part"
"""Names of files that are being written, or that a killed process left."""


class CannotWrite(OSError):
    """A file could not be written: the disk is full, or the folder is gone or closed to us. The message names it."""


@contextmanager
def name_what_fails(path: Path) -> Iterator[None]:
    """Turn an OSError inside the context into a CannotWrite that names `path`."""
    try:
        yield
    except CannotWrite:
        raise
    except OSError as error:
        told = CannotWrite(f"cannot write {path}: {error.strerror or error}")
        told.strerror = error.strerror  # for those whose message names another place
        raise told from error


def describe_os_error(error: OSError) -> str:
    """Describe the error in a line, with the file that it is about."""
    if isinstance(error, CannotWrite) or not error.strerror:
        return str(error)
    return f"{error.strerror}: {error.filename}" if error.filename else error.strerror


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file that replaces `path` when the context ends; after an error `path` is unchanged.

    A reader of `path` finds the old content or the new, never a part. The new content is on the disk before it
    replaces the old.
    Raises: CannotWrite if the file cannot be written.
    """
    with whole_file(path) as aside, open(aside, "wb") as file:
        yield file


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """As `written_whole`, for what writes to a path: yields that of a file beside `path`, named `path.PID.part`."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with name_what_fails(path):
            yield aside
            with open(aside, "rb") as file:
                os.fsync(file.fileno())
            os.replace(aside, path)
            _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            aside.unlink()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a new, empty folder that becomes `path`, which must not exist, when the context ends.

    After an error, or if the process is killed, there is no `path`. Two processes must not do so at once.
    Raises: OSError if it cannot be written.
    """
    aside = path.with_name(f".{path.name}.part")  # hidden, so that nobody takes it for the folder
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        os.replace(aside, path)
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all. Raises: CannotWrite if the file cannot be written."""
    with written_whole(path) as file:
        file.write(content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` to `path`, whole or not at all. Raises: CannotWrite if the file cannot be written."""
    write_bytes(path, f"{json.dumps(content, indent=1)}\n".encode())


def hash_file(path: Path) -> str | None:
    """Return the SHA-256 of the file's content; None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def find_time(path: Path) -> int | None:
    """Find when a file was last written, in nanoseconds since 1970; None if there is none, which may be just gone."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def find_change(path: Path, told: str | None) -> str | None:
    """Describe that the file does not have the hash that was `told` of it, if one was."""
    if told is None or (now := hash_file(path)) == told:
        return None
    return f"{path} {'was changed after it was written' if now else 'is missing, or cannot be read'}"


def _sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to the disk, if the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def find_here() -> str:
    """Return the folder where the command was typed. Raises: ConfigError if it is gone."""
    try:
        return os.getcwd()
    except OSError as error:
        raise ConfigError(
            f"the folder where you are is gone ({error.strerror}): change to another, as by cd"
        ) from error


def shorten_path(folder: Path) -> Path:
    """Return the folder as a person in the present one would type it."""
    folder, here = folder.resolve(), Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder
