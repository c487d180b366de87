"""Where the shipped settings lie, and one choice of a group as it stands in its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from metarun.core.errors import ConfigError, suggest

PACKAGE = Path(__file__).resolve().parents[1]
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if (path / "config.yaml").is_file())
"""The shipped settings: inside an installed package, beside it in a checkout."""

GROUPS = ("data", "backbone", "algo", "optim", "run", "logger")
"""Groups of which a run has one choice each."""


def list_shipped(group: str) -> list[str]:
    """List the choices of a group by name."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def read_shipped(name: str, group: str = "data") -> DictConfig:
    """Read the settings of `GROUP=NAME` as they stand in its file. Raises: ConfigError if there is no such choice."""
    file = CONF / group / f"{name}.yaml"
    if not file.is_file():
        known = list_shipped(group)
        raise ConfigError(f"there is no {group}={name}{suggest(name, known)}; choices are {', '.join(known)}")
    node = OmegaConf.load(file)
    assert isinstance(node, DictConfig)
    settings: DictConfig = node.get(group, node)  # under the group's name where the file sets more than it
    settings.pop("defaults", None)  # of which choices are made, not settings
    return settings


def read_shipped_source(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Read the shipped settings of `data=NAME`, resolved together with the rest of `settings`.

    Raises: ConfigError if there is no such source.
    """
    other = OmegaConf.create({**settings, "data": read_shipped(name)})
    found: dict[str, Any] = OmegaConf.to_container(other.data, resolve=True)  # type: ignore[assignment]
    return found


def list_config_dirs(arguments: Sequence[str]) -> list[Path]:
    """List the folders of YAML files of one's own that a command line names."""
    found = []
    for flag, value in zip(arguments, (*arguments[1:], ""), strict=False):
        if flag in ("--config-dir", "-cd"):
            found.append(Path(value))
        elif flag.startswith("--config-dir="):
            found.append(Path(flag.split("=", 1)[1]))
    return found
