"""The torch device of a run; runs on the same machine spread over its GPUs."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from metarun.core import machine
from metarun.core.errors import ConfigError
from metarun.core.launched import read_local_rank
from metarun.run.team import Group

DEVICES = ("cpu", "cuda", "mps")
"""Types of devices that runs are for."""


def choose_device(name: str) -> torch.device:
    """Return the torch device for `device=name`; `auto` takes a GPU if there is one.

    Raises: ConfigError if the device does not exist.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in DEVICES:
            raise RuntimeError(f"nothing is computed on {device.type}")
        if device.type == "cpu":
            return torch.device("cpu")  # there is one, whatever its number
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        have = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise ConfigError(f"device={name} cannot be used here; there is {', '.join(['auto', 'cpu', *have])}") from error
    return device


def name_device(device: torch.device) -> str:
    """Return the name of the GPU or the processor, or else the device's type."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names or [platform.processor()])[0] or "cpu"


@contextmanager
def hold_device(name: str, group: Group | None = None) -> Iterator[torch.device]:
    """Yield the device for `device=name` and hold it for a run; `auto` takes the GPU with the fewest other runs.

    Each process of a `group` takes its own GPU. Inside the context this GPU is torch's current one, so that pinned
    memory, and other calls that name no device, touch no other GPU.
    Raises: ConfigError if the device does not exist.
    """
    if group and group.size > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        name = f"cuda:{read_local_rank()}"
    elif group and group.size > 1 and name not in ("auto", "cpu"):
        raise ConfigError(
            f"device={name} is for one process; with {group.size} processes set device=cuda, which gives each its own "
            "GPU, or device=cpu"
        )
    with ExitStack() as held:
        if name != "auto" or torch.cuda.device_count() < 2:
            device = choose_device(name)
        else:
            device = torch.device("cuda", held.enter_context(machine.hold_gpu(machine.list_gpus())))
        if device.type == "cuda":
            held.enter_context(torch.cuda.device(device))
        yield device
