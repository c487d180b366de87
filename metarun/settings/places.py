"""Settings that say where files lie: they may be others when a run is opened again, and are kept as absolute paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf

from metarun.core.errors import ConfigError
from metarun.core.ranges import OnDisk
from metarun.settings.conf import GROUPS, read_shipped
from metarun.settings.ranges import find_annotations
from metarun.settings.saved import rename_moved
from metarun.settings.schema import BUILD_ANNOTATIONS

ROOTS = ("paths.data", "paths.cache")


def find_places(config: DictConfig, own: Sequence[str] = ()) -> list[str]:
    """Find the keys of `config` that name files or folders, as the constructors of its groups declare.

    Args:
        own: folders of YAML files of one's own, in which members of a union may stand.
    """
    config = config.copy()
    OmegaConf.set_readonly(config, False)
    rename_moved(config)
    found = [
        f"{group}.{key}"
        for group in GROUPS
        for key, annotation in {
            **BUILD_ANNOTATIONS.get(group, {}),
            **_find_annotations(config[group].get("_target_")),
        }.items()
        if key in config[group] and _is_on_disk(annotation)
    ]
    for name, settings in (config.data.get("members") or {}).items():
        with suppress(ConfigError):  # told when the union is built
            known = find_annotations(str(read_shipped(str(name), own=own)["_target_"]))
            found += [f"data.members.{name}.{key}" for key in settings if _is_on_disk(known.get(key))]
    return [*ROOTS, *found]


def make_absolute(config: DictConfig, own: Sequence[str] = ()) -> DictConfig:
    """Return the same settings with absolute paths for existing files that were typed as relative paths."""
    kept = config.copy()
    OmegaConf.set_readonly(kept, False)
    for key in find_places(config, own):
        value = None if _is_reference(config, key) else OmegaConf.select(config, key)
        if isinstance(value, str) and (key in ROOTS or Path(value).exists()) and value[:1] != "~":
            OmegaConf.update(kept, key, str(Path(value).absolute()))
    return kept


def check_places(config: DictConfig, groups: Sequence[str] = GROUPS, own: Sequence[str] = ()) -> None:
    """Raise ConfigError if a file or folder that the settings of `groups` name has gone.

    Caches are made anew, and what lies under paths.data may be downloaded.
    """
    for key in find_places(config, own):
        value = OmegaConf.select(config, key)
        typed = key.split(".")[0] in groups and not key.endswith(".cache") and not _is_reference(config, key)
        if typed and isinstance(value, str) and Path(value).is_absolute() and not Path(value).exists():
            raise ConfigError(f"{key}={value} is not there. If it was moved, say where it is now: add {key}=PATH")


def _is_reference(config: DictConfig, key: str) -> bool:
    """Return whether the value of a dotted key is that of another one."""
    node, _, name = key.rpartition(".")
    return OmegaConf.is_interpolation(OmegaConf.select(config, node), name)


def _find_annotations(target: Any) -> Mapping[str, Any]:
    """Find the annotations of a class; none where there is no such class, which is told when settings are checked."""
    try:
        return find_annotations(str(target))
    except (ImportError, ValueError, AttributeError, TypeError):
        return {}


def _is_on_disk(annotation: Any) -> bool:
    return any(isinstance(one, OnDisk) or _is_on_disk(one) for one in get_args(annotation))
