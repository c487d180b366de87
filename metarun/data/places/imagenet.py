"""Where mini-ImageNet and tiered-ImageNet lie."""

from __future__ import annotations

from pathlib import Path

from metarun.data.files.find import find_set

NAMES = {"mini_imagenet": ("mini_imagenet", "miniimagenet_ravi"), "tiered_imagenet": ("tiered_imagenet",)}
"""What their folders and archives are called, but for capitals and signs."""

LOOSE = {"mini_imagenet": ("mini-imagenet-cache-*.pkl", "miniImageNet_category_split_*.pickle")}
"""Packed files that lie in no folder of their own, as learn2learn leaves them."""


def find_files(root: str, name: str) -> list[Path]:
    """Return the files, or the folder, that the set `name` would be read from."""
    return find_set(Path(root).expanduser(), NAMES[name], LOOSE.get(name, ()))
