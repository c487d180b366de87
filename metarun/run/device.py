"""The torch device of a run, and its GPU among those of other runs."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from metarun.core import machine
from metarun.core.errors import ConfigError
from metarun.run.processes import place
from metarun.run.team import Group


def choose_device(name: str) -> torch.device:
    """The torch device of `device=name`; `auto` takes a GPU if there is one.

    Raises: ConfigError if it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        have = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise ConfigError(f"device={name} cannot be used here; there is {', '.join(['auto', 'cpu', *have])}") from error
    return device


def name_device(device: torch.device) -> str:
    """What the card, or the processor, is called; the device's type where nobody says."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names or [platform.processor()])[0] or "cpu"


@contextmanager
def held_device(name: str, group: Group | None = None) -> Iterator[torch.device]:
    """The device of `device=name` while a run is on it; `auto` takes the GPU that the fewest other runs are on.

    The processes of a `group` take a GPU each. Inside, a GPU is torch's current one: pinned memory, and whatever else
    names no device, makes no context on another.
    Raises: ConfigError if it is not there.
    """
    if group and group.size > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        name = f"cuda:{place()}"
    elif group and group.size > 1 and name not in ("auto", "cpu"):
        raise ConfigError(f"device={name} is for one process; {group.size} take device=cuda, a GPU each, or device=cpu")
    with ExitStack() as held:
        if name != "auto" or torch.cuda.device_count() < 2:
            device = choose_device(name)
        else:
            device = torch.device("cuda", held.enter_context(machine.held_gpu(machine.list_gpus())))
        if device.type == "cuda":
            held.enter_context(torch.cuda.device(device))
        yield device
