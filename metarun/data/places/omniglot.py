"""Where Omniglot lies."""

from __future__ import annotations

from pathlib import Path

from metarun.data.files.archives import ENDINGS

PARTS = ("images_background", "images_evaluation")

ELSEWHERE = ("omniglot-py", "omniglot_dataset", "omniglot/python", "omniglot/omniglot-py", "omniglot-master/python")
"""Folders in which other projects have the two parts."""


def find_files(root: str) -> list[Path]:
    """Return the two parts, as folders or archives, or one folder of alphabets, under any project's name.

    After a download, those are the zip files whose checksums were right.
    """
    place = Path(root).expanduser()
    downloaded = place / "omniglot-py"
    if (downloaded / "complete").exists():
        return [downloaded / f"{part}.zip" for part in PARTS]
    for folder in (place / "omniglot", place, *(place / name for name in ELSEWHERE)):
        parts = [
            next((path for ending in ("", *ENDINGS) if (path := folder / f"{part}{ending}").exists()), None)
            for part in PARTS
        ]
        if all(parts) and not _is_begun(folder):
            return [part for part in parts if part is not None]
    return [resized] if (resized := place / "omniglot_resized").is_dir() else []


def _is_begun(folder: Path) -> bool:
    """Return whether a download to `folder` was begun and not completed, so that its archives may not be whole."""
    return folder.name == "omniglot-py" and (folder / "lock").exists()
