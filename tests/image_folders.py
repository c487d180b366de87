"""Folders of somebody's images, and the source made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from metarun.core.tasks import EpisodePlan, EpisodeShape
from metarun.data.folder import Folder

PLAN = EpisodePlan(EpisodeShape(2, 1, 1), EpisodeShape(2, 1, 2), 0, 0)
OPTIONS: Mapping[str, object] = {
    "labels": None, "split": None, "fractions": (0.5, 0.25, 0.25), "split_seed": 0, "least": 1, "image_size": 16,
    "channels": 3, "range": None, "fit": "crop", "interpolation": "nearest", "mean": (0,), "std": (1,),
    "augment": "none", "views": 1, "rotation": "none", "trainval": False,
}  # fmt: skip


def picture(shade: int, size: tuple[int, int] = (20, 20)) -> Image.Image:
    return Image.new("RGB", size, (shade, shade, 255 - shade))


def make(path: Path | str | None, cache: Path, plan: EpisodePlan = PLAN, **changes: object) -> Folder:
    path = None if path is None else str(path)
    return Folder(plan, torch.device("cpu"), path, cache=str(cache / "cache"), **{**OPTIONS, **changes})


def write_noise(root: Path, classes: Sequence[str], images: int, *shape: int) -> Path:
    """Write images of random pixels, of `shape` height and width and 3 where they are of colours, by class.

    A class is a folder in `root`, as `c00` or `train/c00`.
    """
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(images):
            Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(root / name / f"{i}.png")
    return root


def shades(source: Folder, split: str) -> set[int]:
    """Class numbers of the pictures that tasks of a split hold."""
    batch = source.batch(split, np.arange(40))
    return {round(255 * value / 20) for value in batch.query.x[..., 0, 0, 0].flatten().tolist()}


def lay_out(root: Path, folders: Mapping[str, Sequence[int]], images: int = 4) -> Path:
    """Write pictures of each class, in its shade, into a folder of its own in a folder such as `train`; no two alike.

    `{}/train` is such a folder inside that of each class.
    """
    for number, (folder, classes) in enumerate(folders.items()):
        for c in classes:
            place = root / (folder.format(f"c{c}") if "{}" in folder else f"{folder}/c{c}")
            place.mkdir(parents=True, exist_ok=True)
            for i in range(images):
                one = picture(20 * c)
                one.putpixel((19, 19), (number, i, 0))
                one.save(place / f"{i}.png")
    return root
