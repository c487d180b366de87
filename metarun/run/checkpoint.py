"""Everything that a bit-exact resume needs, in one file that is either old or new, never half of either."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from metarun.core.whole import written_whole

VERSION = 1


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` and the global random states to `path`, whole or not at all, even through a power cut."""
    path.parent.mkdir(exist_ok=True)
    with written_whole(path) as file:
        torch.save({"version": VERSION, "random": _random_states(), **state}, file)


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote, on the CPU; nothing but tensors and plain values is unpickled.

    `load_state_dict` moves what belongs on another device. It leaves Adam's count of steps, which is read each step.

    Raises: ValueError if the file is of another version of this program.
    """
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if state["version"] != VERSION:
        raise ValueError(f"{path} has checkpoint version {state['version']}; this program reads {VERSION}")
    return state


def moved(state: Any, device: torch.device) -> Any:
    """A tree with its tensors on the device."""
    return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), state)


def restore_random(states: dict[str, Any]) -> None:
    """Put the global generators back to where they were at `save`."""
    torch.set_rng_state(states["torch"].cpu())
    if torch.cuda.is_available() and states["cuda"]:
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), position, has_gauss, cached))


def _random_states() -> dict[str, Any]:
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(numbers), gauss],
        "numpy": [name, np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
    }
