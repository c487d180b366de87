"""Overrides as they are typed, on the command line or after a subcommand, read as Hydra reads them.

Hydra's grammar gives a meaning to `= , [ ] { } ( ) ' "` and has no place for letters such as ü, or for ~ # & ; < >.
What it cannot read is taken as it stands, as text, unless it is the beginning of something else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override as HydraOverride
from hydra.errors import HydraException

from metarun.core.errors import ConfigError
from metarun.settings.conf import CONF

NUMBERS = ("nan", "inf", "null", "true", "false")
"""Words that Hydra's grammar takes for a value of another kind than text."""

_OPENING = ("[", "{", "'", '"', "$")


@dataclass(frozen=True)
class Override:
    """KEY=VALUE, or KEY=VALUE,VALUE of several values; `deletes` is that of ~KEY."""

    key: str
    values: Sequence[Any]
    deletes: bool


def read_override(word: str) -> Override:
    """The override that was typed as `word`. Raises: ConfigError if it cannot be read."""
    override = _parse(quote_value(word, several=True))
    try:
        if override.is_sweep_override():
            name = override.get_key_element()
            values = [_parse(f"{name}={value}").value() for value in override.sweep_string_iterator()]
        else:
            values = [override.value()]
    except HydraException as error:
        raise ConfigError(f"{word} cannot be read: {str(error).splitlines()[0]}") from error
    return Override(override.key_or_group, values, override.is_delete())


def quote_value(word: str, several: bool) -> str:
    """Return the override `word` in a form that Hydra reads: its value is quoted if Hydra's grammar requires it.

    Args:
        word: KEY=VALUE, as it was typed.
        several: whether a comma parts values; else it is part of one where the grammar does not take it.
    Raises: ConfigError if it cannot be read in either way.
    """
    key, equals, value = word.partition("=")
    if value in NUMBERS and (CONF / key.lstrip("+") / f"{value}.yaml").is_file():
        return f"{key}={_quote(value)}"  # the name of a choice
    if equals and _loses_blanks(word, value, several):
        return f"{key}={_quote(value)}"
    if not equals or _is_read(word):
        return word
    if not _is_read(f"{key}=x"):
        raise ConfigError(f"{word} cannot be read: '{key}' is no name of a setting (KEY=VALUE, +KEY=VALUE or ~KEY)")
    if value.startswith(_OPENING):
        inner = value.replace('"', '\\"')
        raise ConfigError(
            f"{word} cannot be read: what it opens is not closed; if it is text, type '{key}=\"{inner}\"'"
        )
    parts = value.split(",") if several and "(" not in value else [value]
    quoted = f"{key}={','.join(part if _is_read(f'{key}={part}') else _quote(part) for part in parts)}"
    _parse(quoted, word)
    return quoted


def read_word(word: str, sweep: bool) -> str:
    """Return an override of the command line as Hydra takes it. Raises: ConfigError if it is none, or needs -m."""
    typed = quote_value(word, sweep)
    override = _parse(typed)
    if override.is_sweep_override() and not sweep:
        key, _, value = word.partition("=")
        text = f"; if it is one, type '{key}=[{value}]' for a list, '{key}=\"{value}\"' for text"
        raise ConfigError(f"{word} has several values: with -m each is a run{text if '(' not in value else ''}")
    group = CONF / override.key_or_group
    if isinstance(override.value(), list) and word[:1] not in "+~" and any(group.glob("*.yaml")):
        choices = ", ".join(sorted(path.stem for path in group.glob("*.yaml")))
        raise ConfigError(f"{word} is no choice of {override.key_or_group}: choose one of {choices}")
    if sweep and override.is_range_sweep() and not list(override.sweep_iterator()):
        raise ConfigError(f"{word} has no value: there is nothing to run")
    return typed


def _parse(word: str, typed: str = "") -> HydraOverride:
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException as error:
        how = " (KEY=VALUE, +KEY=VALUE or ~KEY)" if "=" not in word else ""
        raise ConfigError(
            f"{typed or word or 'an empty word'} cannot be read: {str(error).splitlines()[0]}{how}"
        ) from error


def _is_read(word: str) -> bool:
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


def _loses_blanks(word: str, value: str, several: bool) -> bool:
    """Return whether Hydra would take text without the blanks around it, as of a folder whose name has them."""
    if value == value.strip() or not value.strip() or (several and "," in value) or not _is_read(word):
        return False
    override = _parse(word)
    return not override.is_sweep_override() and override.value() == value.strip()


def _quote(value: str) -> str:
    """Put text in Hydra's quotes; ~ at its beginning becomes the home folder, as in a shell, and ./~ does not."""
    if value == "~" or value.startswith("~/"):
        value = os.path.expanduser(value)
    elif value == "./~" or value.startswith("./~/"):
        value = os.path.abspath(value)  # without its first two signs it would be the home folder
    return "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + found[2].replace("'", "\\'"), value) + "'"
