"""What the settings in a run's folder may name: whoever made the folder, they run no code but metarun's and torch's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from metarun.core.errors import ConfigError
from metarun.core.run_folder import SHIPPED
from metarun.settings.conf import GROUPS

PARTS = re.compile(rf"({'|'.join(GROUPS)}|optim\.schedule|optims\.[^.]+|optims\.[^.]+\.schedule)\._target_")
"""The keys that name classes, of which build.py makes the parts of a run."""

IMPORTS = re.compile(r"data\.(members\.[^.]+\.)?id")
"""The keys of names that gymnasium takes, which imports what stands before a colon."""

ADVICE = "if you know who made this run, and what it does, add --trust"

_SETTING = re.compile(r"(\+{0,2}(?!hydra\b)[A-Za-z_][\w./@-]*=|~(?!hydra\b)[A-Za-z_][\w./@-]*(=|$))")
_OUR_VARIABLES = re.compile(r"\$\{oc\.env:METARUN_(DATA|CACHE)\b[^{}]*\}")
_RESOLVER = re.compile(r"\$\{[^}]*(:|\$\{)")


def check_saved(config: DictConfig, where: str) -> None:
    """Raise ConfigError if settings from the folder of a run name code or read the environment.

    Args:
        config: the settings, not resolved.
        where: what they stand in, for the message.
    """
    found = list(_find_foreign(OmegaConf.to_container(config)))
    if found:
        raise ConfigError("\n".join(f"{where}: {one}" for one in found) + f"\n{ADVICE}")


def check_overrides(words: Sequence[Any], where: str) -> None:
    """Raise ConfigError if overrides in a run's folder do more than set a run's settings, as hydra/launcher= does."""
    for word in words:
        if not isinstance(word, str) or not _SETTING.match(word):
            raise ConfigError(f"{where}: the override {word!r} is no setting of a run\n{ADVICE}")
        key, _, value = word.lstrip("+").partition("=")
        if found := _describe_import(key, value):
            raise ConfigError(f"{where}: {found}\n{ADVICE}")


def reads_elsewhere(value: str) -> bool:
    """Return whether a value that is not resolved refers to more than other settings and our two variables."""
    return bool(_RESOLVER.search(_OUR_VARIABLES.sub("", value)))


def _find_foreign(values: Any) -> Iterator[str]:
    """Find each value that does something which a stranger's settings may not do."""
    for key, value in _walk(values):
        if key.endswith("_target_"):
            if not PARTS.fullmatch(key):
                yield f"{key}={value} names code where no part of a run stands"
            elif not str(value).startswith(SHIPPED):
                yield f"{key}={value} is code that does not come with metarun"
        if found := _describe_import(key, value):
            yield found
        if isinstance(value, str) and reads_elsewhere(value):
            yield f"{key}={value} reads what is not among the settings"


def _describe_import(key: str, value: Any) -> str | None:
    if IMPORTS.fullmatch(key) and ":" in str(value):
        return f"{key}={value} imports the module {str(value).partition(':')[0]}"
    return None


def _walk(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value in a tree of mappings and lists, with its dotted key."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield f"{prefix}{key}", value
            yield from _walk(value, f"{prefix}{key}.")
    elif isinstance(tree, list | tuple):
        for number, value in enumerate(tree):
            yield f"{prefix}{number}", value
            yield from _walk(value, f"{prefix}{number}.")
