"""A job whose folder holds a run of other settings: it would pass for done, and its sweep would end without it."""

from __future__ import annotations

from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from metarun.core.errors import ConfigError
from metarun.core.identity import check_run, find_differences
from metarun.core.run_folder import RunFolder
from metarun.core.secrets import mask
from metarun.settings.places import make_absolute
from metarun.settings.saved import drop_newer, open_settings


def check_same_run(files: RunFolder, config: DictConfig, own: list[str]) -> None:
    """Raise ConfigError if the folder holds a run of other settings than `config`; it may hold none.

    One whose files disagree among themselves is left to the job, which says so and ends none of the others. An older
    run is the same one if what it lacks means what it did.

    Args:
        own: folders of YAML files of one's own.
    """
    try:
        check_run(files)
        before, _ = open_settings(files.path)
    except ConfigError:
        return
    if apart := find_differences(_list_old(before), _list_old(make_absolute(config, own))):
        raise ConfigError(
            f"{files.path} holds a run with {', '.join(apart)}: choose another folder: hydra.sweep.subdir=NAME, or "
            "leave that out"
        )


def _list_old(config: DictConfig) -> dict[str, Any]:
    """List the settings without those that older runs lack, and with passwords as a run's file has them."""
    kept = config.copy()
    OmegaConf.set_readonly(kept, False)
    OmegaConf.set_struct(kept, False)
    drop_newer(kept)
    return dict(yaml.safe_load(mask(OmegaConf.to_yaml(kept))))
