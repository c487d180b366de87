"""The settings of a run that is there already: to be read, changed and resolved again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from metarun.core.dotted import leaves
from metarun.core.identity import check_run
from metarun.core.run_folder import RunFolder
from metarun.settings.compose import compose
from metarun.settings.conf import shipped
from metarun.settings.names import settings_key
from metarun.settings.resolve import resolve
from metarun.settings.saved import open_settings, rename_moved
from metarun.settings.schema import Node, Settings


@dataclass(frozen=True)
class SavedSettings:
    """Settings that a run saved, not resolved: where one is changed, those that refer to it follow.

    Attributes:
        config: in today's words, with what is newer than the run.
        choices: what was chosen in each group.
        overrides: what was typed.
        swept: whether the run was a job of a sweep.
    """

    config: DictConfig
    choices: Mapping[str, str]
    overrides: Sequence[str] = ()
    swept: bool = False

    def change(self, values: Mapping[str, Any]) -> SavedSettings:
        """The same with other `values`, by dotted key."""
        config = self.config.copy()
        for key, value in values.items():
            OmegaConf.update(config, key, value)
        return replace(self, config=config)

    def choose(self, group: str, name: str) -> SavedSettings:
        """The same with the shipped settings of GROUP=NAME. Raises: ConfigError if there is no such choice."""
        config = self.config.copy()
        config[group] = shipped(name, group)
        return replace(self, config=config, choices={**self.choices, group: name})

    def settle(self, *but: str) -> SavedSettings:
        """The same with all settings resolved, those of the groups `but` aside: the others no longer follow them."""
        config, whole = self.config.copy(), self.config.copy()
        OmegaConf.resolve(whole)
        for group in map(str, config):
            if group not in but:
                config[group] = whole[group]
        return replace(self, config=config)

    def node(self, group: str) -> Node:
        """The settings of a group, resolved and not checked."""
        return OmegaConf.to_container(self.config[group], resolve=True)  # type: ignore[return-value]

    def resolve(self, warn: bool = False) -> Settings:
        """As the function `resolve` does it. Raises: ConfigError with all problems, one a line."""
        return resolve(self.config, self.choices, warn)

    def key(self) -> str:
        """Eight characters that differ where the settings do what differs."""
        return settings_key(self.config)


def reopen(folder: Path) -> SavedSettings:
    """The settings of the run in `folder`. Raises: ConfigError if it has none, or files of another."""
    check_run(RunFolder(folder))
    config, hydra = open_settings(folder)
    overrides = [str(word) for word in hydra.overrides.task]
    return SavedSettings(config, dict(hydra.runtime.choices), overrides, "MULTIRUN" in str(hydra.mode))


def saved_leaves(folder: Path) -> dict[str, Any]:
    """The settings of the run in `folder` by dotted key, not resolved, with what was there then and nothing newer.

    Classes have their names of today.
    """
    config = OmegaConf.load(RunFolder(folder).settings)
    assert isinstance(config, DictConfig)
    rename_moved(config)
    return leaves(OmegaConf.to_container(config))  # type: ignore[arg-type]


def composed_leaves(words: Sequence[str], folders: Sequence[str]) -> dict[str, Any]:
    """What `compose` gives, by dotted key. Raises: ConfigError if the overrides do not compose."""
    return leaves(OmegaConf.to_container(compose(words, folders)))  # type: ignore[arg-type]


def saved_value(folder: Path, key: str) -> Any:
    """One setting of the run in `folder`, resolved; None where it has none."""
    return OmegaConf.select(OmegaConf.load(RunFolder(folder).settings), key)
