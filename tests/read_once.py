"""Hydra reads some sixty YAML files for a command. In tests each is parsed once, and again where it was changed."""

from __future__ import annotations

import functools
import os
from copy import deepcopy
from types import SimpleNamespace
from typing import IO, Any

from hydra._internal.core_plugins import file_config_source, importlib_resources_config_source
from omegaconf import OmegaConf


def read_once() -> None:
    """From now on commands of this process, and of those that are forked from it, share what they parse."""
    for module in (file_config_source, importlib_resources_config_source):
        module.OmegaConf = SimpleNamespace(load=_load)  # type: ignore[attr-defined]


def _load(file: IO[str]) -> Any:
    at = os.fstat(file.fileno())
    return deepcopy(_parse(file.name, at.st_ino, at.st_mtime_ns, at.st_size))


@functools.cache
def _parse(path: str, *_as_it_is: int) -> Any:
    return OmegaConf.load(path)
