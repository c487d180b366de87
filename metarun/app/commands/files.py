"""Files that a person asked for by name."""

from __future__ import annotations

from pathlib import Path

from metarun.core.errors import ConfigError


def write(path: Path, content: bytes) -> None:
    """Write `content` to `path`. Raises: ConfigError if that cannot be done."""
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
