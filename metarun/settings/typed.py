"""Overrides that are typed after a subcommand, read as Hydra reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from metarun.core.errors import ConfigError


@dataclass(frozen=True)
class Override:
    """KEY=VALUE, or KEY=VALUE,VALUE of several values; `deletes` is that of ~KEY."""

    key: str
    values: Sequence[Any]
    deletes: bool


def read_override(word: str) -> Override:
    """The override that was typed as `word`. Raises: ConfigError if it cannot be read."""
    parser = OverridesParser.create()
    try:
        override = parser.parse_override(word)
        if override.is_sweep_override():
            name = override.get_key_element()
            one_by_one = override.sweep_string_iterator()
            values = [parser.parse_override(f"{name}={value}").value() for value in one_by_one]
        else:
            values = [override.value()]
    except HydraException as error:
        raise ConfigError(f"{word} cannot be read: {str(error).splitlines()[0]}") from error
    return Override(override.key_or_group, values, override.is_delete())
