"""Where texts of one's own lie."""

from __future__ import annotations

from pathlib import Path

from metarun.data.files.find import find_own


def find_files(path: str | None) -> list[Path]:
    """Return the file or folder that `data.path` names, if it is there."""
    return find_own(path)
