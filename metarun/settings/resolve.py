"""The settings of one run, checked and resolved once: whoever is handed them knows no Hydra and no OmegaConf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from metarun.settings.check import check, refuse
from metarun.settings.compose import explain_errors
from metarun.settings.conf import GROUPS
from metarun.settings.saved import rename_moved
from metarun.settings.schema import Node, Settings


def resolve(
    config: DictConfig,
    choices: Mapping[str, Any] | None = None,
    warn: bool = True,
    own: Sequence[str] = (),
    typed: Sequence[str] = (),
) -> Settings:
    """Check and resolve `config`, which stays unchanged.

    Args:
        config: as Hydra composes it, or as a run saved it.
        choices: what was chosen in each group.
        warn: whether settings without effect are told.
        own: folders of YAML files of one's own.
        typed: the words of the command line.
    Raises: ConfigError with all problems, one a line.
    """
    with explain_errors([]):  # of settings that refer to others
        config = config.copy()
        OmegaConf.set_readonly(config, False)
        rename_moved(config)
        if warn:
            check(config, choices or {}, own, typed)
        else:
            refuse(config)
        values: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return from_dict(values, _name_choices(choices) if choices else {}, own)


def _name_choices(choices: Mapping[str, Any]) -> dict[str, str]:
    """Name what was chosen in each group, and in those of which a run need not have a choice where it has one."""
    also = [group for group in ("optim/schedule", "experiment", "debug") if choices.get(group)]
    return {group: str(choices.get(group)) for group in (*GROUPS, *also)}


def from_dict(values: Mapping[str, Any], choices: Mapping[str, str], own: Sequence[str] = ()) -> Settings:
    """Restore settings that were checked and resolved before, in this process or in another."""
    known = Settings.__dataclass_fields__
    return Settings(**{name: value for name, value in values.items() if name in known}, choices=dict(choices), own=own)


def find_target(node: Node) -> Any:
    """Return the class or function that the settings of a group name."""
    return get_object(node["_target_"])
