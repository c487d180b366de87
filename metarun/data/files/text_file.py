"""Small text files that people write by hand."""

from __future__ import annotations

from pathlib import Path


def read_text(file: Path) -> str:
    """Read a file of UTF-8, with or without a mark of it. Raises: ValueError if there is none that can be read."""
    try:
        return file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {file}: {getattr(error, 'strerror', None) or 'it is no text'}") from error
