"""Where the sets of torchvision lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def find_files(root: str, dataset: str, options: Mapping[str, Any]) -> list[Path]:
    """Return the folder of a download that was completed, or the one that torchvision has unpacked itself."""
    folder, elsewhere = name_folder(root, dataset, options), Path(root).expanduser() / dataset / "raw"
    found = {folder / "data": (folder / "complete").exists(), elsewhere: elsewhere.is_dir()}
    return [place for place, is_there in found.items() if is_there][:1]


def name_folder(root: str, dataset: str, options: Mapping[str, Any]) -> Path:
    words = "_".join([dataset, *(f"{key}-{value}" for key, value in sorted(options.items()))])
    return Path(root).expanduser() / words.lower()
