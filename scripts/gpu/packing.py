"""Image archives in two thirds of their size: a class's images side by side in lossless WebP, with a checksum.

python scripts/gpu/packing.py PART... FOLDER      # writes the images of all parts to FOLDER as zip files of PNG
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

SHEET, COLUMNS = 100, 10
"""Images on a sheet, and in a row of it."""


class Packed(NamedTuple):
    """One class.

    Attributes:
        name: its folder in the archive, as train/apple.
        facts: `names` of its files, `shape` [H, W, C] of an image, and `sha256` of the bytes of all pixels.
        sheets: WebP files of `SHEET` images each, the last one filled up with black.
    """

    name: str
    facts: dict[str, Any]
    sheets: list[bytes]


def pack(archives: Sequence[Path], parts: Sequence[Path]) -> None:
    """Write the PNG images of `archives` (SPLIT/CLASS/*.png) to as many files as `parts` names, of about equal size.

    Raises: ValueError if the images of a class differ in size or are not RGB.
    """
    classes: dict[str, dict[str, bytes]] = defaultdict(dict)
    for archive in archives:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.namelist():
                if member.endswith(".png"):
                    folder, _, file = member.rpartition("/")
                    classes[folder][file] = opened.read(member)
    with multiprocessing.Pool() as pool:
        packed = pool.map(pack_class, sorted(classes.items()), chunksize=1)
    for number, part in enumerate(parts):
        aside = part.with_suffix(".part")
        with zipfile.ZipFile(aside, "w") as opened:
            for one in packed[number :: len(parts)]:
                opened.writestr(f"{one.name}/facts.json", json.dumps(one.facts))
                for sheet, content in enumerate(one.sheets):
                    opened.writestr(f"{one.name}/{sheet:03}.webp", content)
            opened.comment = json.dumps({"classes": len(classes)}).encode()
        os.replace(aside, part)


def unpack(parts: Sequence[Path], folder: Path) -> int:
    """Write each class of `parts` to a zip file of its own in `folder`; returns the number of images.

    Raises: ValueError if a part is missing, or a class is not what was packed.
    """
    found: list[Packed] = []
    whole = 0
    for part in parts:
        with zipfile.ZipFile(part) as opened:
            whole = json.loads(opened.comment)["classes"]
            found += _read_classes(opened)
    if len(found) != whole:
        raise ValueError(f"{len(parts)} parts hold {len(found)} of {whole} classes. Name all parts, each once")
    folder.mkdir(parents=True, exist_ok=True)
    with multiprocessing.Pool() as pool:
        return sum(pool.imap_unordered(_write_class, [(one, folder) for one in found]))


def pack_class(item: tuple[str, dict[str, bytes]]) -> Packed:
    """Pack a class: its name, and the PNG files by name. Raises: ValueError, see `pack`."""
    name, files = item
    images = []
    for file, content in sorted(files.items()):
        image = Image.open(io.BytesIO(content))
        if image.mode != "RGB":
            raise ValueError(f"{name}/{file} is {image.mode}; only RGB can be packed")
        images.append(np.asarray(image))
    if len({image.shape for image in images}) > 1:
        raise ValueError(f"the images of {name} differ in size; only images of one size can be packed")
    pixels = np.stack(images)
    sheets = [_encode(pixels[start : start + SHEET]) for start in range(0, len(pixels), SHEET)]
    facts = {"names": sorted(files), "shape": pixels.shape[1:], "sha256": _checksum(pixels)}
    return Packed(name, facts, sheets)


def unpack_class(packed: Packed) -> Pixels:
    """Return the images [R, H, W, C] of a class. Raises: ValueError if their checksum is another one."""
    height, width, channels = packed.facts["shape"]
    rows = []
    for sheet in packed.sheets:
        wall = np.asarray(Image.open(io.BytesIO(sheet)))
        grid = wall.reshape(-1, height, COLUMNS, width, channels)
        rows.append(grid.swapaxes(1, 2).reshape(-1, height, width, channels))
    pixels: Pixels = np.concatenate(rows)[: len(packed.facts["names"])]
    if _checksum(pixels) != packed.facts["sha256"]:
        raise ValueError(f"the pixels of {packed.name} are not those that were packed; carry its part again")
    return pixels


def _checksum(pixels: Pixels) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def _encode(images: Pixels) -> bytes:
    """Encode up to `SHEET` images [R, H, W, C], ten side by side."""
    height, width, channels = images.shape[1:]
    missing = -len(images) % COLUMNS
    filled = np.concatenate([images, np.zeros((missing, height, width, channels), np.uint8)])
    wall = filled.reshape(-1, COLUMNS, height, width, channels).swapaxes(1, 2)  # [rows, H, columns, W, C]
    content = io.BytesIO()
    sheet = Image.fromarray(np.ascontiguousarray(wall).reshape(-1, COLUMNS * width, channels))
    sheet.save(content, "webp", lossless=True, quality=80, method=4)  # more effort takes minutes and saves 1 %
    return content.getvalue()


def _read_classes(part: zipfile.ZipFile) -> Iterable[Packed]:
    sheets: dict[str, list[bytes]] = defaultdict(list)
    facts = {}
    for member in sorted(part.namelist()):
        folder, _, file = member.rpartition("/")
        if file == "facts.json":
            facts[folder] = json.loads(part.read(member))
        else:
            sheets[folder].append(part.read(member))
    return [Packed(name, facts[name], sheets[name]) for name in facts]


def _write_class(item: tuple[Packed, Path]) -> int:
    """Write a class's images as PNG to SPLIT-CLASS.zip, whole or not at all; returns their number."""
    packed, folder = item
    path = folder / f"{packed.name.replace('/', '-')}.zip"
    aside = path.with_suffix(".part")
    with zipfile.ZipFile(aside, "w") as archive:
        for file, image in zip(packed.facts["names"], unpack_class(packed), strict=True):
            content = io.BytesIO()
            Image.fromarray(image).save(content, "png", compress_level=1)
            archive.writestr(f"{packed.name}/{file}", content.getvalue())
    os.replace(aside, path)
    return len(packed.facts["names"])


if __name__ == "__main__":
    *given, target = map(Path, sys.argv[1:])
    print(f"{unpack(given, target)} images in {target}")
