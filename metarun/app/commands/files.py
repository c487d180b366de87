"""Files that a person asked for by name."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from metarun.core.errors import ConfigError
from metarun.core.run_folder import find_owner
from metarun.core.screen import Screen

SHOWN = (".csv", ".html", ".md", ".png", ".tex")
"""Endings of files for people, which can be made again."""


def write_and_say(path: Path, content: bytes, screen: Screen) -> None:
    """Write a file, and say so. Raises: ConfigError if that cannot be done."""
    write(path, content)
    screen.print(Text(f"written: {path}"))


def write(path: Path, content: bytes) -> None:
    """Write `content` to `path`.

    Raises: ConfigError if that cannot be done, or would take the place of a file that a run wrote.
    """
    if path.exists() and path.suffix not in SHOWN and (run := find_owner(path)):
        raise ConfigError(f"{path} is a file of the run {run}, and stays as it is: choose another name")
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
