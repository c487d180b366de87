"""Folders of YAML files of one's own, which a run was given by --config-dir."""

from __future__ import annotations

from pathlib import Path

from metarun.core import identity
from metarun.core.identity import as_mapping, read_yaml
from metarun.core.run_folder import RunFolder


def read_config_dirs(folder: Path) -> list[str]:
    """Read the folders of YAML files of one's own that the run in `folder` was given by --config-dir."""
    return identity.read_config_dirs(as_mapping(read_yaml(RunFolder(folder).hydra).get("hydra")))


def find_config_dirs(folder: Path) -> list[str]:
    """Find what is typed for `read_config_dirs`; a folder below the present one by its short name."""
    here = Path.cwd()
    paths = [Path(path) for path in read_config_dirs(folder)]
    return [f"--config-dir={path.relative_to(here) if path.is_relative_to(here) else path}" for path in paths]
