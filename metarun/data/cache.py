"""Decoded images on disk: written aside, renamed when whole, and read back memory-mapped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save_file

from metarun.data.images import ImageClasses


def cached(folder: Path, name: str, key: str, make: Callable[[], ImageClasses]) -> ImageClasses:
    """The images that `make` returns, from `folder` if they were made before under the same `key`.

    Processes that want the same images wait for the one that makes them.

    Args:
        folder: the cache folder; made if missing.
        name: what the images are called, for people who look there.
        key: a hash of everything that the pixels depend on.
    """
    path = folder / f"{name}-{key[:16]}.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                data = make()
                aside = path.with_suffix(f".{os.getpid()}.part")
                tables = {"names": json.dumps(data.names), "starts": json.dumps(data.starts.tolist())}
                save_file({"pixels": data.pixels.contiguous()}, aside, metadata=tables)
                os.replace(aside, path)
    with safe_open(path, framework="pt") as file:
        tables = file.metadata()
        starts = np.array(json.loads(tables["starts"]), np.int64)
        return ImageClasses(file.get_tensor("pixels"), starts, json.loads(tables["names"]))
