"""Where the shipped settings lie, and one choice of a group as it stands in its file."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from metarun.core.errors import ConfigError, name_choices

PACKAGE = Path(__file__).resolve().parents[1]
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if (path / "config.yaml").is_file())
"""The shipped settings: inside an installed package, beside it in a checkout."""

GROUPS = ("data", "backbone", "algo", "optim", "run", "logger")
"""Groups of which a run has one choice each."""


TASKS = "/tasks@_here_"
"""What a source of one's own has among its defaults for the settings of tasks."""


def list_shipped(group: str) -> list[str]:
    """List the choices of a group by name."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def read_shipped(name: str, group: str = "data", own: Sequence[str] = ()) -> DictConfig:
    """Read the settings of `GROUP=NAME` as they stand in its file.

    Args:
        own: folders of YAML files of one's own, where there is no shipped choice of that name.
    Raises: ConfigError if there is no such choice.
    """
    folders = [CONF, *map(Path, own)]
    file = next((path for folder in folders if (path := folder / group / f"{name}.yaml").is_file()), None)
    if file is None:
        known = sorted({*list_shipped(group), *(path.stem for one in own for path in Path(one, group).glob("*.yaml"))})
        raise ConfigError(f"there is no {group}={name}{name_choices(name, known, group)}")
    node = load_settings(file)
    settings: DictConfig = node.get(group, node)  # under the group's name where the file sets more than it
    for choice in settings.pop("defaults", None) or ():  # others make choices, and set nothing
        if str(choice) == TASKS:
            settings = OmegaConf.merge(load_settings(CONF / "tasks.yaml"), settings)  # type: ignore[assignment]
    return settings


def load_settings(file: Path) -> DictConfig:
    """Load a YAML file of settings, which is parsed once, and again after it was changed."""
    return deepcopy(_parse(file, file.stat().st_mtime_ns))


@functools.cache
def _parse(file: Path, _changed: int) -> DictConfig:
    node = OmegaConf.load(file)
    assert isinstance(node, DictConfig)
    return node


def check_own_names(choices: Mapping[str, Any], own: Sequence[str]) -> None:
    """Raise ConfigError if a choice is metarun's, and a YAML of one's own that has its name is not used therefore."""
    for group, choice in choices.items():
        for folder in own:
            file, ours = Path(folder) / group / f"{choice}.yaml", CONF / group / f"{choice}.yaml"
            if file.is_file() and ours.is_file() and file.read_bytes() != ours.read_bytes():
                raise ConfigError(f"{group}={choice} is metarun's, and {file} is not used: give yours another name")


def read_source(settings: Mapping[str, Any], name: str, own: Sequence[str]) -> dict[str, Any]:
    """Read the settings of `data=NAME`, resolved together with the rest of `settings`.

    Args:
        own: see `read_shipped`.
    Raises: ConfigError if there is no such source.
    """
    other = OmegaConf.create({**settings, "data": read_shipped(name, own=own)})
    found: dict[str, Any] = OmegaConf.to_container(other.data, resolve=True)  # type: ignore[assignment]
    return found


def list_parts(settings: Mapping[str, Any], own: Sequence[str]) -> list[dict[str, Any]]:
    """Return the settings of the sources of images that a run's data is made of, or else the data's own alone.

    Args:
        settings: of the run, resolved.
        own: see `read_shipped`.
    """
    data = settings["data"]
    names = [*data.get("sources", ()), *([data["images"]] if isinstance(data.get("images"), str) else [])]
    return [read_source(settings, name, own) | data.get("members", {}).get(name, {}) for name in names] or [data]


def list_config_dirs(arguments: Sequence[str]) -> list[Path]:
    """List the folders of YAML files of one's own that a command line names."""
    found = []
    for flag, value in zip(arguments, (*arguments[1:], ""), strict=False):
        if flag in ("--config-dir", "-cd"):
            found.append(Path(value))
        elif flag.startswith("--config-dir="):
            found.append(Path(flag.split("=", 1)[1]))
    return found
