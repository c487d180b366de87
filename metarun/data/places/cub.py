"""Where CUB-200-2011 lies."""

from __future__ import annotations

from pathlib import Path

from metarun.data.files.find import find_places

NAMES = ("cub", "CUB_200_2011", "cub_200", "CUB_200_2011_FewShot")
"""What people call its folder."""


def find_files(root: str) -> list[Path]:
    """Return its archive or folder, whichever of its names that has."""
    return find_places(Path(root).expanduser(), *NAMES)
