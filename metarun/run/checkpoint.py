"""Checkpoints: all that a bit-exact resume needs, in one file that is written whole or not at all."""

from __future__ import annotations

import random
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch.utils import _pytree as pytree

from metarun.core.whole import name_what_fails, written_whole

CHECKPOINT_VERSION = 1


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` and the global random states to `path`, whole or not at all, even if the power fails.

    Raises: CannotWrite if the disk is full, or the folder gone.
    """
    with name_what_fails(path):
        path.parent.mkdir(exist_ok=True)
    with written_whole(path) as file:
        told = _Told(file)
        try:
            torch.save({"version": CHECKPOINT_VERSION, "random": get_random_states(), **state}, cast(IO[bytes], told))
        except RuntimeError as error:
            raise told.failure or error from error


class _Told:
    """A file that remembers why a write failed; torch itself only says that a position is unexpected."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.failure: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return self.file.write(content)
        except OSError as failure:
            self.failure = failure
            raise

    def flush(self) -> None:
        self.file.flush()


class Damaged(ValueError):
    """A checkpoint is not what was written."""


def load(path: Path) -> dict[str, Any]:
    """Load onto the CPU what `save` wrote. Only tensors and plain values are unpickled.

    `load_state_dict` then moves tensors to their device, but leaves Adam's step count, which the CPU reads each step.

    Raises: Damaged if the file is missing, cut or changed; ValueError if another version of this program wrote it.
    """
    _check_sums(path)
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if state["version"] != CHECKPOINT_VERSION:
        raise ValueError(f"{path} has checkpoint version {state['version']}; this program reads {CHECKPOINT_VERSION}")
    return state


def _check_sums(path: Path) -> None:
    """Compare each part of the file with its checksum, which torch writes and does not read."""
    if not path.is_file():
        raise Damaged(f"{path} is missing")
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError) as error:
        raise Damaged(f"{path} is damaged: {error}") from error
    if changed:
        raise Damaged(f"{path} is damaged: {changed} does not match its checksum")


def move_tensors(state: Any, device: torch.device) -> Any:
    """Move the tensors of a tree to the device."""
    return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), state)


def restore_random(states: dict[str, Any]) -> None:
    """Set the global generators to their states at `save`."""
    torch.set_rng_state(states["torch"].cpu())
    if torch.cuda.is_available() and states["cuda"]:
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), position, has_gauss, cached))


def get_random_states() -> dict[str, Any]:
    """Return the states of all global generators, for `restore_random`."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(numbers), gauss],
        "numpy": [name, np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
    }


def check_split(file: Path, now: str, then: str) -> None:
    """Raise ValueError if the data is split otherwise than when the checkpoint was written."""
    if now != then:
        raise ValueError(f"{file} was trained on another split of the data: {then[:12]}, not {now[:12]}")
