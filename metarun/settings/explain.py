"""Hydra's and OmegaConf's errors, said in one line with the nearest thing that would have worked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

from metarun.core.errors import nearest


def explain(error: Exception, conf: Path, arguments: Sequence[str]) -> str:
    """One message for what a person typed wrongly."""
    text = _text(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        options = [str(option) for option in error.options or []]
        listed = f"; choices are {', '.join(options)}" if options else ""
        return f"there is no {group}={choice}{nearest(choice, options)}{listed}"
    key = re.search(r"Could not override '([^']+)'", text) or re.search(r"full_key: (\S+)", text)
    if key and ("not in" in text or "No match" in text):
        name = key[1].removeprefix("+")
        return f"there is no setting {name}{nearest(name, _known(conf, arguments))}"
    if isinstance(error, OverrideParseException):
        return f"{error.override} cannot be read: {text.splitlines()[0]}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not re.match(r"(full_key|object_type|See https)", line)]
    where = f" ({key[1]})" if key and key[1] not in kept[0] else ""
    return " ".join(dict.fromkeys(kept)) + where


def _text(error: BaseException) -> str:
    """The error's message and those of what caused it, outermost first."""
    messages = []
    cause: BaseException | None = error
    while cause is not None:
        messages.append(str(cause))
        cause = cause.__cause__
    return "\n".join(message for message in messages if message.strip()) or type(error).__name__


def _known(conf: Path, arguments: Sequence[str]) -> list[str]:
    """Every setting there is under those choices of groups that do compose, and the groups."""
    groups = {path.parent.relative_to(conf).as_posix() for path in conf.rglob("*.yaml")} - {"."}
    choices = [a for a in arguments if a.partition("=")[0].lstrip("+") in groups and "," not in a]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        try:
            config = compose("config", choices)
        except HydraException:
            config = compose("config")
    return [*_keys(OmegaConf.to_container(config), ""), *groups]


def _keys(values: Any, prefix: str) -> Iterator[str]:
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, (dict, DictConfig)):
            yield from _keys(value, f"{prefix}{key}.")
