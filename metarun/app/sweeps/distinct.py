"""A sweep's jobs are told apart by their settings: two with the same settings are refused before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from metarun.app.sweeps.listed import TARGET, list_jobs
from metarun.core.command import find_key
from metarun.core.errors import Refused
from metarun.core.identity import ASIDE, is_among


class DistinctJobs(Callback):
    """Hydra's callback that refuses a grid with two jobs of the same settings: they would share a folder."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Raise Refused for such jobs. The sweeper itself reports other errors in the settings."""
        target = config.hydra.sweeper._target_
        try:
            if target == TARGET:
                problem = find_same_entries(config)
            else:
                problem = find_unclear_values(list_typed(config))
                same = find_same_jobs(config) if "BasicSweeper" in target and not problem else None
                problem = _explain(config, *same) if same else problem
        except (HydraException, OmegaConfBaseException):
            return
        if problem:
            raise Refused(problem)


def find_unclear_values(words: Sequence[str]) -> str | None:
    """Describe a glob that matches nothing, or a setting that stands twice, once with several values, if any."""
    found: dict[str, Override] = {}
    for override in OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(list(words)):
        word, before = override.input_line, found.get(override.key_or_group)
        if override.is_discrete_sweep() and not list(override.sweep_string_iterator()):
            return f"{word} matches nothing: there is nothing to run"
        if before and (before.is_sweep_override() or override.is_sweep_override()):
            return f"{before.input_line} and {word} are of one setting: leave one out"
        found[override.key_or_group] = override
    return None


def find_same_jobs(config: DictConfig) -> tuple[str, str, str] | None:
    """Find a setting of which two values lead to the same folder: its key and these values.

    Each value is composed once, with the first value of every other setting: a sum of values, not their product.

    Args:
        config: of the sweep, as Hydra has it before the first job.
    """
    values = _list_values(list_typed(config))
    first = {key: choices[0] for key, choices in values.items()}
    number = count()
    for key, choices in values.items():
        folders: dict[str, str] = {}
        for value in choices if len(choices) > 1 else ():
            folder = _name_folder(config, first | {key: value}, next(number))
            if folder in folders:
                return key, folders[folder], value
            folders[folder] = value
    return None


def find_same_entries(config: DictConfig) -> str | None:
    """Describe two jobs of a list of runs that would share a folder, if any."""
    loader = GlobalHydra.instance().config_loader()
    jobs = list_jobs(config.hydra.sweeper.file, list_typed(config), loader)
    folders: dict[str, str] = {}
    for number, job in enumerate(jobs):
        folder, told = _name_folder(config, dict(word.split("=", 1) for word in job), number), " ".join(job)
        if folder in folders:
            file = config.hydra.sweeper.file
            return f"these are the same run: '{folders[folder]}' and '{told}'; leave one out of {file}"
        folders[folder] = told
    return None


def list_typed(config: DictConfig, group: str = "task") -> list[str]:
    """List the overrides that were typed, or Hydra's own, not resolved: ${data.n_way} differs from job to job."""
    typed = OmegaConf.to_container(config.hydra.overrides[group])
    assert isinstance(typed, list)
    return [str(word) for word in typed]


def _list_values(words: Sequence[str]) -> Mapping[str, list[str]]:
    """List the values of each override, as Hydra's sweeper does."""
    found: dict[str, list[str]] = {}
    for override in OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(list(words)):
        if override.is_discrete_sweep():
            found[override.get_key_element()] = list(override.sweep_string_iterator())
        else:
            found[override.get_key_element()] = [override.get_value_element_as_str()]
    return found


def _name_folder(config: DictConfig, chosen: Mapping[str, str], number: int) -> str:
    job = GlobalHydra.instance().config_loader().load_sweep_config(config, [f"{k}={v}" for k, v in chosen.items()])
    with open_dict(job):
        job.hydra.job.num, job.hydra.job.id = number, str(number)
    return str(job.hydra.sweep.subdir)


def _explain(config: DictConfig, key: str, one: str, other: str) -> str:
    folder = next((word for word in list_typed(config, "hydra") if find_key(word) == "hydra.sweep.subdir"), None)
    if folder and one != other:
        return f"{folder} puts {key}={one} and {key}={other} into one folder, and each is a run: leave it out"
    if one == other:
        return f"{key}={one} stands twice in the sweep, and is one run: leave one out"
    if is_among(key.replace("/", "."), ASIDE):
        return (
            f"{key}={one} and {key}={other} are one run of the sweep, in one folder: {key} does not tell runs apart. "
            "Leave one out, or make each a command of its own, without -m"
        )
    return f"{key}={one} and {key}={other} mean the same, and are one run of the sweep: leave one out"
