"""Hydra reads and merges some twenty YAML files for a command. In tests it does so once for a choice of files.

A command chooses files (algo=maml) and puts values in (optim.lr=0.1). What comes of the chosen files is kept, and made
anew where a file of settings was added, changed or taken away. The values are put in by Hydra each time.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.defaults_list import DefaultsList, Overrides
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

make_list, merge = config_loader_impl.create_defaults_list, ConfigLoaderImpl._compose_config_from_defaults_list
_lists: dict[object, DefaultsList] = {}
_merged: dict[object, bytes] = {}


class Chosen(list[Any]):
    """The files that are merged, and what decides what comes of it."""

    key: object


def read_once() -> None:
    """From now on commands of this process, and of those that are forked from it, share what they read."""
    config_loader_impl.create_defaults_list = _make_list
    ConfigLoaderImpl._compose_config_from_defaults_list = _merge  # type: ignore[method-assign]


def _make_list(repo: Any, config_name: str, overrides_list: list[Any], **how: bool) -> DefaultsList:
    overrides = Overrides(repo=repo, overrides_list=overrides_list)
    choices = [o for o in overrides_list if not o.is_sweep_override() and o not in overrides.config_overrides]
    words = tuple(choice.input_line for choice in choices)
    key = (config_name, words, *how.items(), *_sources(repo))
    if key not in _lists:
        made = make_list(repo, config_name, choices, **how)
        made.defaults = Chosen(made.defaults)
        made.defaults.key = key
        _lists[key] = made
    known = _lists[key]
    return DefaultsList(known.defaults, known.defaults_tree, overrides.config_overrides, deepcopy(known.overrides))


def _merge(self: ConfigLoaderImpl, defaults: Chosen, repo: Any) -> DictConfig:
    if defaults.key not in _merged:
        _merged[defaults.key] = pickle.dumps(merge(self, defaults, repo))
    return pickle.loads(_merged[defaults.key])  # a copy in a third of deepcopy's time


def _sources(repo: Any) -> Iterator[object]:
    """Where files may lie, and each that lies there, as it is now."""
    for source in repo.get_sources():
        yield source.scheme(), source.provider, source.path
        if source.scheme() == "file":
            yield from _files(source.path)
    yield tuple((group, *_names(node)) for group, node in ConfigStore.instance().repo.items())


def _files(folder: str) -> Iterator[object]:
    if os.path.isdir(folder):
        for entry in os.scandir(folder):
            if entry.is_dir():
                yield from _files(entry.path)
            elif entry.name.endswith((".yaml", ".yml")):
                at = entry.stat()
                yield entry.path, at.st_ino, at.st_mtime_ns, at.st_size


def _names(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for name, below in node.items():
            yield name
            yield from _names(below)
