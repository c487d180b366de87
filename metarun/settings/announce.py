"""What a run is about to do, in a line or two: told before torch is imported, which takes seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metarun.core.command import keep_last
from metarun.core.secrets import mask
from metarun.core.words import name_network, name_task
from metarun.settings.conf import CONF, GROUPS, list_shipped, load_settings, read_shipped
from metarun.settings.explain import format_value
from metarun.settings.typed import read_override

UNKNOWN = object()

BESIDE = ("data", "algo", "tuned")
"""Groups whose choices may also set settings of other groups, in the order in which they are applied."""


def describe_start(config: DictConfig, choices: Mapping[str, Any], words: Sequence[str], folder: Path) -> list[str]:
    """Describe a run as it was composed: what is to run and where its files go, and what was typed of its settings.

    Nothing is checked yet: what is wrong, or not there, is left out.

    Args:
        config: the settings, unresolved.
        choices: what was chosen in each group.
        words: the overrides that were typed.
        folder: the run's.
    """

    def find(key: str) -> Any:
        try:
            return OmegaConf.select(config, key)
        except OmegaConfBaseException:
            return None

    steps, tasks, rate = (find(key) for key in ("run.steps", "run.meta_batch_size", "optim.lr"))
    what = [
        f"{choices.get('algo')} on {choices.get('data')}",
        name_task(find("data.n_way"), find("data.k_shot")),
        *name_network(str(choices.get("backbone"))),
        f"{steps} steps x {tasks} tasks" if steps and tasks else "",
        f"{choices.get('optim')} {rate}",
        f"seed {find('seed')}",
    ]
    lines = [f"{', '.join(filter(None, what))} -> {folder}/"]
    changed = [text for word in keep_last(words) if (text := _describe_change(word, choices))]
    return [mask(line) for line in [*lines, *(["typed: " + "  ".join(changed)] if changed else [])]]


def _describe_change(word: str, choices: Mapping[str, Any]) -> str | None:
    """Return KEY=VALUE (DEFAULT) of a setting that was typed; None for a choice, which the first line tells."""
    override = read_override(word)
    if override.deletes or override.key in GROUPS or "/" in override.key or override.key.startswith("hydra"):
        return None if override.key in (*GROUPS, "hydra.run.dir") else word
    before = _find_default(override.key, choices)
    known = before is not UNKNOWN and not (isinstance(before, str) and "${" in before)
    return f"{word} ({format_value(before)})" if known and [before] != list(override.values) else word


def _find_default(key: str, choices: Mapping[str, Any]) -> Any:
    """Find the value that a setting has if nobody sets it; UNKNOWN if an experiment may say otherwise."""
    group, _, name = key.partition(".")
    if choices.get("experiment") or choices.get("debug"):
        return UNKNOWN
    if not name:
        node, name = load_settings(CONF / "config.yaml"), group
    elif group in GROUPS and choices.get(group) in list_shipped(group):
        node = read_shipped(str(choices[group]), group)
    else:
        return UNKNOWN
    found = _look_up(OmegaConf.to_container(node), name)
    for other in BESIDE:
        file = CONF / other / f"{choices.get(other)}.yaml"
        if file.is_file() and file.read_text().startswith("# @package _global_"):
            said = _look_up(OmegaConf.to_container(load_settings(file)), key)
            found = found if said is UNKNOWN else said
    return found


def _look_up(tree: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(tree, dict) or part not in tree:
            return UNKNOWN
        tree = tree[part]
    return tree
