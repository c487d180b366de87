"""The settings of a run that is there already: to be read, changed and resolved again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from metarun.core.dotted import leaves
from metarun.core.identity import check_run, read_config_dirs
from metarun.core.run_folder import RunFolder
from metarun.core.secrets import is_masked
from metarun.settings.compose import compose
from metarun.settings.conf import read_shipped
from metarun.settings.names import make_key
from metarun.settings.resolve import resolve
from metarun.settings.saved import open_settings, rename_moved
from metarun.settings.schema import Node, Settings
from metarun.settings.trust import check_overrides, check_saved


@dataclass(frozen=True)
class SavedSettings:
    """Settings that a run saved, not resolved: where one is changed, those that refer to it follow.

    Attributes:
        config: in today's words, with what is newer than the run.
        choices: what was chosen in each group.
        overrides: what was typed.
        swept: whether the run was a job of a sweep.
        own: folders of YAML files of one's own, in which choices are looked for as well.
    """

    config: DictConfig
    choices: Mapping[str, str]
    overrides: Sequence[str] = ()
    swept: bool = False
    own: Sequence[str] = ()

    def change(self, values: Mapping[str, Any]) -> SavedSettings:
        """Return the same settings with other `values`, by dotted key."""
        config = self.config.copy()
        for key, value in values.items():
            OmegaConf.update(config, key, value)
        return replace(self, config=config)

    def choose(self, group: str, name: str) -> SavedSettings:
        """Return the same with GROUP=NAME as its file has it. Raises: ConfigError if there is no such choice."""
        config = self.config.copy()
        config[group] = read_shipped(name, group, self.own)
        return replace(self, config=config, choices={**self.choices, group: name})

    def settle(self, *but: str) -> SavedSettings:
        """Return the same, resolved except for the groups `but`: the others no longer follow changes in these."""
        config, whole = self.config.copy(), self.config.copy()
        OmegaConf.resolve(whole)
        for group in map(str, config):
            if group not in but:
                config[group] = whole[group]
        return replace(self, config=config)

    def node(self, group: str) -> Node:
        """Return the settings of a group, resolved and unchecked."""
        return OmegaConf.to_container(self.config[group], resolve=True)  # type: ignore[return-value]

    def find_masked(self) -> list[str]:
        """Find the keys of addresses whose password was not kept."""
        config: Any = OmegaConf.to_container(self.config)
        return [key for key, value in leaves(config).items() if is_masked(value) and not key.startswith("paper.")]

    def resolve(self, warn: bool = False) -> Settings:
        """Resolve the settings. Raises: ConfigError with all problems, one per line."""
        return resolve(self.config, self.choices, warn, self.own)

    def key(self) -> str:
        """Return eight characters that depend on the settings, see names.py."""
        return make_key(self.config)


def reopen(folder: Path, trust: bool = False, own: Sequence[str] = ()) -> SavedSettings:
    """Read the settings of the run in `folder`.

    Args:
        folder: the run's folder.
        trust: whether they may name code that does not come with metarun.
        own: folders of YAML files of one's own that were typed now; those of a run that is trusted are added.
    Raises: ConfigError if it has none, or files of another, or if its settings do more than they may.
    """
    check_run(RunFolder(folder))
    config, hydra = open_settings(folder)
    if not trust:
        check_saved(config, str(RunFolder(folder).settings))
    overrides = [str(word) for word in hydra["overrides"]["task"]]
    own = [*own, *(read_config_dirs(hydra) if trust else [])]
    return SavedSettings(config, hydra["runtime"]["choices"], overrides, "MULTIRUN" in str(hydra["mode"]), own)


def read_saved_leaves(folder: Path) -> dict[str, Any]:
    """Read the settings of the run in `folder` by dotted key, unresolved, without settings that are newer than the run.

    Classes have their names of today.
    """
    config = OmegaConf.load(RunFolder(folder).settings)
    assert isinstance(config, DictConfig)
    rename_moved(config)
    return leaves(OmegaConf.to_container(config))  # type: ignore[arg-type]


def compose_leaves(words: Sequence[str], folders: Sequence[str], trust: bool, where: str) -> dict[str, Any]:
    """Compose the overrides `words` of a run with today's defaults, by dotted key.

    Args:
        words: the overrides.
        folders: the run's folders of YAML files.
        trust: whether they may name code that does not come with metarun.
        where: what they stand in, for the message.
    Raises: ConfigError if they do not compose, or if they do more than they may.
    """
    if not trust:
        check_overrides(words, where)
    config = compose(words, folders)
    if not trust:
        check_saved(config, where)
    return leaves(OmegaConf.to_container(config))  # type: ignore[arg-type]
