"""The published sets as small folders: every class of their real lists, with a few tiny pictures that classes share."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from metarun.data.files.splits import read_split

IMAGES = 20
"""Pictures of each class."""


def write_published(root: Path) -> Path:
    """Write Omniglot, CIFAR-FS, mini-ImageNet, CUB, with its attributes, and MNIST into files as they are published."""
    rng = np.random.default_rng(0)
    ink = [_draw(rng.random((14, 14)) > 0.3) for _ in range(IMAGES)]
    photos = [_draw(rng.integers(0, 256, (8, 8, 3), np.uint8)) for _ in range(IMAGES)]
    lake = read_split("omniglot_lake")
    for part, names in (("images_background", lake["train"] + lake["val"]), ("images_evaluation", lake["test"])):
        _pack(root / "omniglot" / f"{part}.zip", [f"{part}/{name}" for name in names], ink)
    for name in ("cifar_fs", "mini_imagenet"):
        split = read_split(name)
        _pack(root / f"{name}.zip", [f"{part}/{label}" for part in split for label in split[part]], photos)
    birds = sorted(name for names in read_split("cub").values() for name in names)
    folder = root / "cub" / "CUB_200_2011"
    _pack(root / "cub" / "cub.zip", [f"CUB_200_2011/images/{bird}" for bird in birds], photos)
    with zipfile.ZipFile(root / "cub" / "cub.zip") as archive:
        archive.extractall(root / "cub")
    (root / "cub" / "cub.zip").unlink()
    (folder / "attributes").mkdir()
    (folder / "classes.txt").write_text("".join(f"{i} {bird}\n" for i, bird in enumerate(birds, 1)))
    rows = "\n".join(" ".join(map(str, row)) for row in rng.integers(0, 100, (len(birds), 6)))
    (folder / "attributes" / "class_attribute_labels_continuous.txt").write_text(rows + "\n")
    digits = np.repeat(np.arange(10, dtype=np.uint8), IMAGES)
    (root / "MNIST" / "raw").mkdir(parents=True)
    for part in ("train", "t10k"):
        _write_idx(root / "MNIST" / "raw" / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (200, 28, 28), np.uint8))
        _write_idx(root / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte", digits)
    return root


def _write_idx(path: Path, numbers: np.ndarray) -> None:
    """Write bytes as MNIST has them: what they are, how many along each axis, and the bytes."""
    path.write_bytes(bytes([0, 0, 8, numbers.ndim]) + np.array(numbers.shape, ">i4").tobytes() + numbers.tobytes())


def _draw(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _pack(path: Path, folders: list[str], pictures: list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for folder in folders:
            for i, picture in enumerate(pictures):
                archive.writestr(f"{folder}/{i:04d}.png", picture)
