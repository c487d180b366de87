"""The processes that torchrun, or the first process of a run, started with this one, as the environment says."""

from __future__ import annotations

import os

from metarun.core.errors import ConfigError

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Only where all of them are set were processes started together; a shell may have kept some of them."""

UNSET = f"to run alone: unset {' '.join(VARIABLES)}"


def read_launched() -> tuple[int, int]:
    """Return the number of this process, from 0, and how many there are; 0 and 1 for a process alone.

    Raises: ConfigError if the environment says what cannot be.
    """
    if not all(os.environ.get(name, "").strip() for name in VARIABLES):
        return 0, 1
    rank, size, _ = (_read(name) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
    if rank >= size:
        raise ConfigError(f"RANK={rank} is not below WORLD_SIZE={size} in the environment; {UNSET}")
    return rank, size


def read_local_rank() -> int:
    """Return the number of this process among those on this machine, from 0. Raises: ConfigError."""
    return _read("LOCAL_RANK") if os.environ.get("LOCAL_RANK") else 0


def _read(name: str) -> int:
    value = os.environ[name].strip()
    if not value.isdecimal():
        raise ConfigError(f"{name}={value} in the environment is no whole number; {UNSET}")
    return int(value)
