"""A job whose folder holds a run of other settings: it would pass for done, and its sweep would end without it."""

from __future__ import annotations

import yaml
from omegaconf import DictConfig, OmegaConf

from metarun.core.errors import ConfigError
from metarun.core.identity import check_run, find_differences, read_yaml
from metarun.core.run_folder import RunFolder
from metarun.core.secrets import mask
from metarun.settings.places import make_absolute


def check_same_run(files: RunFolder, config: DictConfig, own: list[str]) -> None:
    """Raise ConfigError if the folder holds a run of other settings than `config`.

    One whose files disagree among themselves is left to the job, which says so and ends none of the others.

    Args:
        own: folders of YAML files of one's own.
    """
    try:
        check_run(files)
    except ConfigError:
        return
    before = read_yaml(files.settings)
    now = yaml.safe_load(mask(OmegaConf.to_yaml(make_absolute(config, own)))) if before else {}
    if before and (apart := find_differences(before, now)):
        raise ConfigError(
            f"{files.path} holds a run with {', '.join(apart)}: choose another folder: hydra.sweep.subdir=NAME, or "
            "leave that out"
        )
