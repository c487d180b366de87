"""Decoded images on disk: written to a temporary file, renamed when complete, checked, and read back memory-mapped."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from metarun.core.whole import whole_file
from metarun.data.images import ImageClasses

log = logging.getLogger(__name__)

HASH_TO_COME = 64 * "0"
"""Keeps the place of the hash in the header until the pixels are written."""

MAX_HASHED = 2**28
"""Bytes of a file that is compared with its hash each time it is opened: half a second. Of a larger one, such as
tiered-ImageNet's (16 GB, half a minute), that is done once, and again when its size or its time has changed."""


def open_or_make(folder: Path, name: str, key: str, make: Callable[[], ImageClasses]) -> ImageClasses:
    """Open the images that `folder` holds under `key`, or call `make` and store the images that it returns.

    Args:
        folder: the cache folder; created if it is missing.
        name: a name for the images, for people who look into the folder.
        key: a hash of everything that the pixels depend on.
    """

    def write(path: Path) -> None:
        data = make()
        create_cache_file(path, data.names, data.starts, data.pixels.shape)[:] = data.pixels.numpy()

    return open_or_write(folder, name, key, write)


def open_or_write(folder: Path, name: str, key: str, write: Callable[[Path], None]) -> ImageClasses:
    """Open the images that `folder` holds under `key`, or have `write` write them to a file first.

    `write` gets the path of a new file, which it fills through `create_cache_file`. Processes that need the same images
    wait for the one that writes them. Files that a killed process left unfinished are deleted, and a damaged file is
    written again.
    Raises: ValueError if the folder cannot be written.
    """
    path = folder / f"{name}-{key[:16]}.safetensors"
    damage = find_damage(path) if path.exists() else "missing"
    if damage:
        if path.exists():
            log.warning("the decoded images in %s are made again: %s", path, damage)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _hold_lock(Path(f"{path}.lock"), name):
                if not path.exists() or find_damage(path):
                    for dead in folder.glob(f"{path.stem}.*.part"):
                        dead.unlink()
                    with whole_file(path) as aside:
                        write(aside)
                        _seal(aside)
                    _remember(path)
        except OSError as error:
            raise ValueError(f"cannot write {folder}: {error.strerror}. Set paths.cache=FOLDER") from error
    return _map_file(path)


def find_damage(path: Path) -> str:
    """Return how a file differs from what was written; an empty string if it does not."""
    try:
        with safe_open(path, framework="numpy") as file:  # compares the header with the file's size
            tables, shape = file.metadata(), file.get_slice("pixels").get_shape()
        if tables["tables_sha256"] != _hash_tables(tables["names"], tables["starts"], shape):
            return "its table of classes is not the one that was written"
        if path.stat().st_size > MAX_HASHED and _is_remembered(path):
            return ""
        if tables["sha256"] != _hash_pixels(path):
            return "its pixels are not those that were written"
    except KeyError as error:
        return f"its header has no {error}, or an earlier version wrote it"
    except (SafetensorError, OSError) as error:
        return str(error)
    _remember(path)
    return ""


def _map_file(path: Path) -> ImageClasses:
    """Map the images of a cache file, so that only those in use are loaded into memory.

    The safetensors library maps its tensors privately, and for that the system reserves memory of the file's size.
    """
    with safe_open(path, framework="numpy") as file:
        tables, shape = file.metadata(), file.get_slice("pixels").get_shape()
    with open(path, "rb") as file:
        offset = 8 + int.from_bytes(file.read(8), "little")
    pixels = np.memmap(path, np.uint8, "r", offset, tuple(shape))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes to it
        tensor = torch.from_numpy(pixels)
    return ImageClasses(tensor, np.array(json.loads(tables["starts"]), np.int64), json.loads(tables["names"]))


def create_cache_file(
    path: Path, names: Sequence[str], starts: NDArray[np.int64], shape: Sequence[int]
) -> np.memmap[tuple[int, ...], np.dtype[np.uint8]]:
    """Create a cache file and map its pixels [R, C, H, W], so that they can be written one image at a time.

    The safetensors library can only write tensors that are in memory. Its format is an 8-byte length, a JSON header and
    the bytes of the pixels.
    """
    tables = {"names": json.dumps(list(names)), "starts": json.dumps(starts.tolist()), "sha256": HASH_TO_COME}
    tables["tables_sha256"] = _hash_tables(tables["names"], tables["starts"], shape)
    size = int(np.prod(shape, dtype=np.int64))
    entry = {"dtype": "U8", "shape": list(shape), "data_offsets": [0, size]}
    header = json.dumps({"__metadata__": tables, "pixels": entry}).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        if hasattr(os, "posix_fallocate"):  # a full disk is an error here, but a crash when mapped pages are written
            file.flush()
            os.posix_fallocate(file.fileno(), 0, 8 + len(header) + size)
    return np.memmap(path, np.uint8, "r+", 8 + len(header), tuple(shape))


def _seal(path: Path) -> None:
    """Write the hash of the pixels into the header."""
    digest = _hash_pixels(path)
    with open(path, "r+b") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
        file.seek(8)
        file.write(header.replace(HASH_TO_COME.encode(), digest.encode(), 1))


def _hash_pixels(path: Path) -> str:
    with open(path, "rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_tables(names: str, starts: str, shape: Sequence[int]) -> str:
    return hashlib.sha256(repr((names, starts, list(shape))).encode()).hexdigest()


def _remember(path: Path) -> None:
    """Note the size and time of a large file whose hash was right; where that cannot be noted it is compared again."""
    if path.stat().st_size > MAX_HASHED:
        with suppress(OSError):
            _note(path).write_text(_name_version(path))


def _is_remembered(path: Path) -> bool:
    try:
        return _note(path).read_text() == _name_version(path)
    except OSError:
        return False


def _note(path: Path) -> Path:
    return Path(f"{path}.checked")


def _name_version(path: Path) -> str:
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns}"


@contextmanager
def _hold_lock(path: Path, name: str) -> Iterator[None]:
    """Hold the lock inside the context; log a message if another process holds it first."""
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
