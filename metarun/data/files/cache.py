"""Decoded images on disk: written aside, renamed when whole, and read back memory-mapped."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from metarun.data.images import ImageClasses

log = logging.getLogger(__name__)

UNKNOWN = 64 * "0"
"""In the place of a hash until there is one."""


def cached(folder: Path, name: str, key: str, make: Callable[[], ImageClasses]) -> ImageClasses:
    """The images that `make` returns, from `folder` if they were made before under the same `key`.

    Args:
        folder: the cache folder; made if missing.
        name: what the images are called, for people who look there.
        key: a hash of everything that the pixels depend on.
    """

    def write(path: Path) -> None:
        data = make()
        canvas(path, data.names, data.starts, data.pixels.shape)[:] = data.pixels.numpy()

    return kept(folder, name, key, write)


def kept(folder: Path, name: str, key: str, write: Callable[[Path], None]) -> ImageClasses:
    """As `cached`, with images that `write` puts into the file it is given, by way of `canvas`.

    Processes that want the same images wait for the one that makes them. What a killed one left is thrown away.
    Raises: ValueError if the folder cannot be written or the file is damaged.
    """
    path = folder / f"{name}-{key[:16]}.safetensors"
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _waiting(Path(f"{path}.lock"), name):
                if not path.exists():
                    for dead in folder.glob(f"{path.stem}.*.part"):
                        dead.unlink()
                    aside = path.with_suffix(f".{os.getpid()}.part")
                    try:
                        write(aside)
                        _seal(aside)
                        os.replace(aside, path)
                    finally:
                        aside.unlink(missing_ok=True)
        except OSError as error:
            raise ValueError(f"cannot write {folder}: {error.strerror}. Set paths.cache=FOLDER") from error
    try:
        return _mapped(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"the cache {path} is damaged ({error}); delete it and start again") from error


def _mapped(path: Path) -> ImageClasses:
    """The images in a cache file, of which only what is looked at comes into memory.

    The library's own tensor is mapped privately, for which the system wants as much memory as the file is large.
    """
    with safe_open(path, framework="numpy") as file:  # compares the header with the file's size
        tables, shape = file.metadata(), file.get_slice("pixels").get_shape()
    with open(path, "rb") as file:
        offset = 8 + int.from_bytes(file.read(8), "little")
    pixels = np.memmap(path, np.uint8, "r", offset, tuple(shape))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes
        tensor = torch.from_numpy(pixels)
    return ImageClasses(tensor, np.array(json.loads(tables["starts"]), np.int64), json.loads(tables["names"]))


def canvas(
    path: Path, names: Sequence[str], starts: NDArray[np.int64], shape: Sequence[int]
) -> np.memmap[tuple[int, ...], np.dtype[np.uint8]]:
    """The pixels [R, C, H, W] of a new cache file, to be filled where they lie, however many there are.

    The safetensors library writes whole tensors alone; of its format this is an 8-byte length, a JSON header and the
    bytes themselves.
    """
    tables = {"names": json.dumps(list(names)), "starts": json.dumps(starts.tolist()), "sha256": UNKNOWN}
    size = int(np.prod(shape, dtype=np.int64))
    entry = {"dtype": "U8", "shape": list(shape), "data_offsets": [0, size]}
    header = json.dumps({"__metadata__": tables, "pixels": entry}).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and a crash where mapped pages are written
            file.flush()
            os.posix_fallocate(file.fileno(), 0, 8 + len(header) + size)
    return np.memmap(path, np.uint8, "r+", 8 + len(header), tuple(shape))


def _seal(path: Path) -> None:
    """Note the hash of the pixels in the header."""
    with open(path, "r+b") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(8)
        file.write(header.replace(UNKNOWN.encode(), digest.encode(), 1))


@contextmanager
def _waiting(path: Path, name: str) -> Iterator[None]:
    """Inside, the lock is held; says so if another process holds it first."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process that prepares %s", name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
