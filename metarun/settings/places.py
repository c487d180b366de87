"""Settings that say where files lie: they may be others when a run is opened again, and are kept as absolute paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf

from metarun.core.errors import ConfigError
from metarun.core.ranges import OnDisk
from metarun.settings.conf import GROUPS
from metarun.settings.ranges import find_annotations
from metarun.settings.saved import rename_moved
from metarun.settings.schema import BUILD_ANNOTATIONS

ROOTS = ("paths.data", "paths.cache")


def find_places(config: DictConfig) -> list[str]:
    """Find the keys of `config` that name files or folders, as the constructors of its groups declare."""
    config = config.copy()
    OmegaConf.set_readonly(config, False)
    rename_moved(config)
    found = [
        f"{group}.{key}"
        for group in GROUPS
        for key, annotation in {
            **BUILD_ANNOTATIONS.get(group, {}),
            **find_annotations(str(config[group]["_target_"])),
        }.items()
        if key in config[group] and _is_on_disk(annotation)
    ]
    return [*ROOTS, *found]


def make_absolute(config: DictConfig) -> DictConfig:
    """Return the same settings with absolute paths for existing files that were typed as relative paths."""
    kept = config.copy()
    OmegaConf.set_readonly(kept, False)
    for key in find_places(config):
        group, name = key.split(".")
        value = None if OmegaConf.is_interpolation(config[group], name) else config[group][name]
        if isinstance(value, str) and (key in ROOTS or Path(value).exists()) and value[:1] != "~":
            OmegaConf.update(kept, key, str(Path(value).absolute()))
    return kept


def check_places(config: DictConfig, groups: Sequence[str] = GROUPS) -> None:
    """Raise ConfigError if a file or folder that the settings of `groups` name has gone.

    Caches are made anew, and what lies under paths.data may be downloaded.
    """
    for key in find_places(config):
        value = OmegaConf.select(config, key)
        group, name = key.split(".")
        typed = group in groups and name != "cache" and not OmegaConf.is_interpolation(config[group], name)
        if typed and isinstance(value, str) and Path(value).is_absolute() and not Path(value).exists():
            raise ConfigError(f"{key}={value} is not there. If it was moved, say where it is now: add {key}=PATH")


def _is_on_disk(annotation: Any) -> bool:
    return any(isinstance(one, OnDisk) or _is_on_disk(one) for one in get_args(annotation))
