"""Files that a person asked for by name."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from metarun.core.errors import ConfigError
from metarun.core.screen import Screen


def write_and_say(path: Path, content: bytes, screen: Screen) -> None:
    """Write a file, and say so. Raises: ConfigError if that cannot be done."""
    write(path, content)
    screen.print(Text(f"written: {path}"))


def write(path: Path, content: bytes) -> None:
    """Write `content` to `path`. Raises: ConfigError if that cannot be done."""
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
