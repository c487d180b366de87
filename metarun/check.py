"""Rules across groups: every problem with the settings, in one report, before any data is opened."""

from __future__ import annotations

import inspect
import logging
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from metarun.errors import ConfigError, nearest
from metarun.schema import CHOICES, GROUPS, RANGES, Config

# Keys of a group that build.py reads itself, and facts that it hands to whichever constructor asks for them.
BUILD_KEYS = {"data": {"n_way", "k_shot", "n_query", "train", "eval_seed", "steps"}, "optim": {"clip_norm", "schedule"}}
FACTS = {
    "data": {"plan", "device"},
    "backbone": {"input_shape", "bn"},
    "algo": {"backbone", "n_way"},
    "optim": {"params"},
    "optim.schedule": {"optimizer"},
    "run": {"parts"},
    "logger": {"facts"},
}

log = logging.getLogger(__name__)


def check(config: DictConfig) -> None:
    """Raise ConfigError with all problems of `config`, one a line; warn of settings without effect."""
    problems = [f"there is no setting {key}{nearest(key, _root())}" for key in map(str, config) if key not in _root()]
    for group in (*GROUPS, "optim.schedule"):
        problems += _unknown(group, OmegaConf.select(config, group))
    for key, number in RANGES.items():
        if _has(config, key):
            problems += [number.problem(key, OmegaConf.select(config, key)) or ""]
    for key, choices in CHOICES.items():
        value = OmegaConf.select(config, key)
        if _has(config, key) and value not in choices:
            problems.append(f"{key}={value} is not one of {', '.join(choices)}{nearest(str(value), choices)}")
    ways = config.data.train.n_way
    if "n_way" in _parameters(config.algo["_target_"]) and ways != config.data.n_way:
        problems.append(
            f"data.train.n_way={ways} must be data.n_way={config.data.n_way}: the chosen algo has a head of that size"
        )
    problems = [problem for problem in problems if problem]
    if problems:
        raise ConfigError("\n".join(problems))
    _warn(config)


def _root() -> list[str]:
    return list(Config.__dataclass_fields__)


def _has(config: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return isinstance(node, DictConfig) and name in node


def _unknown(group: str, node: DictConfig) -> list[str]:
    """Keys that the group's constructor does not have."""
    if "_target_" not in node:
        return [f"the chosen {group} names no _target_"]
    known = _parameters(node["_target_"]) - FACTS[group] | BUILD_KEYS.get(group, set())
    return [
        f"there is no setting {group}.{key}{nearest(f'{group}.{key}', [f'{group}.{name}' for name in sorted(known)])}"
        for key in map(str, node)
        if not key.startswith("_") and key not in known
    ]


def _parameters(target: str) -> set[str]:
    try:
        return set(inspect.signature(get_object(target)).parameters)
    except (ImportError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"_target_={target} cannot be used: {error}") from error


def _warn(config: DictConfig) -> None:
    def value(key: str) -> Any:
        return OmegaConf.select(config, key)

    if value("algo.engine") == "learn2learn" and value("algo.task_chunk") not in (None, 0, 1):
        log.warning("algo.task_chunk has no effect with algo.engine=learn2learn, which loops over tasks")
    if value("run.val_every") is not None and value("run.val_every") > value("run.steps"):
        log.warning("run.val_every is above run.steps: the run is validated once, at its end")
    if value("run.test_tasks") < 600:
        log.warning("run.test_tasks=%s is few for a number to believe; papers use 600 or more", value("run.test_tasks"))
