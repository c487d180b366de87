"""Rules across groups: every problem with the settings, in one report, before any data is opened."""

from __future__ import annotations

import logging
import math
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from metarun.core.errors import ConfigError, suggest
from metarun.settings.conf import GROUPS
from metarun.settings.ranges import annotations_of, parameters_of, problem
from metarun.settings.schema import ANNOTATIONS, BUILD_KEYS, Config

# Facts that build.py hands to whichever constructor asks for them.
FACTS = {
    "data": {"plan", "device", "open_source"},
    "backbone": {"input_shape", "bn", "normalisation"},
    "algo": {"backbone", "bn", "input_shape", "n_way", "outputs", "objective", "train_classes", "prior"},
    "optim": {"params"},
    "optim.schedule": {"optimizer"},
    "run": {"parts"},
    "logger": {"info"},
}

NO_BACKBONE = "torch.nn.Identity"

log = logging.getLogger(__name__)


def check(config: DictConfig) -> None:
    """Raise ConfigError with all problems of `config`, one a line; warn of settings without effect."""
    refuse(config)
    _warn(config)


def refuse(config: DictConfig) -> None:
    """Raise ConfigError with all problems of `config`, one a line."""
    problems = [f"there is no setting {key}{suggest(key, _root())}" for key in map(str, config) if key not in _root()]
    for group in (*GROUPS, "optim.schedule"):
        node = OmegaConf.select(config, group)
        problems += _unknown(group, node) + _missing(group, node) + _out_of_range(group, node)
    for key, annotation in ANNOTATIONS.items():
        if _has(config, key):
            problems.append(problem(key, _plain(OmegaConf.select(config, key)), annotation) or "")
    for name, own in (config.get("optims") or {}).items():
        problems += _unknown(f"optims.{name}", {**config.optim, **own}, "optim")
    problems += [_algo_and_data(config.algo["_target_"], config.data) or "", _algo_and_backbone(config) or ""]
    if "n_way" in config.data and OmegaConf.is_list(OmegaConf.select(config, "data.train.k_shot")):
        problems.append(f"data.train.k_shot={config.data.train.k_shot} must be one number where tasks have classes")
    if found := [one for one in problems if one]:
        raise ConfigError("\n".join(found))


def has_head(algo: str) -> bool:
    """Whether the algorithm's class `algo` is built for a number of classes."""
    return bool({"outputs", "n_way"} & _parameters(algo))


def _algo_and_data(algo: str, data: DictConfig) -> str | None:
    """What keeps the algorithm from learning the data's tasks, if anything."""
    found = getattr(get_object(data["_target_"]), "kinds", ("classification" if "n_way" in data else "regression",))
    kinds = getattr(get_object(algo), "kinds", None)
    if kinds is None:
        return f"algo._target_={algo} is no Learner, see metarun/algos/base/learner.py"
    names = algo.rpartition(".")[2], data["_target_"].rpartition(".")[2]
    if not set(kinds) & set(found):
        are = " and ".join(found)
        return (
            f"{names[0]} is for {' and '.join(kinds)}; the tasks of {names[1]} are {are}: choose another algo or data"
        )
    heads = "outputs" in _parameters(algo) and "n_way" in data and "n_way" in data.get("train", {})
    if heads and data.train.n_way != data.n_way:
        return (
            f"data.train.n_way={data.train.n_way} must be data.n_way={data.n_way}: "
            "the chosen algo has a head of that size"
        )
    return None


def _algo_and_backbone(config: DictConfig) -> str | None:
    """Whether a backbone is chosen where none is asked for, or the other way round."""
    name = config.algo["_target_"].rpartition(".")[2]
    asked, given = "backbone" in _parameters(config.algo["_target_"]), config.backbone["_target_"] != NO_BACKBONE
    if asked and not given:
        return f"{name} needs a network: choose another backbone than none"
    if given and not asked:
        return f"{name} has no use for a backbone, all that it has are the settings of algo: set backbone=none"
    return None


def _root() -> list[str]:
    return list(Config.__dataclass_fields__)


def _has(config: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return isinstance(node, DictConfig) and name in node


def _unknown(group: str, node: Any, kind: str = "") -> list[str]:
    """Keys that the constructor of the group, or of one of its `kind`, does not have."""
    kind = kind or group
    if "_target_" not in node:
        return [f"the chosen {group} names no _target_"]
    known = _parameters(node["_target_"]) - FACTS[kind] | BUILD_KEYS.get(kind, set())
    return [
        f"there is no setting {group}.{key}{suggest(f'{group}.{key}', [f'{group}.{name}' for name in sorted(known)])}"
        for key in map(str, node)
        if not key.startswith("_") and key not in known
    ]


def _missing(group: str, node: DictConfig) -> list[str]:
    """Keys without which the group's constructor cannot be called."""
    if "_target_" not in node:
        return []
    name, parameters = node["_target_"].rpartition(".")[2], parameters_of(node["_target_"]).values()
    return [
        f"{group}.{parameter.name} is missing: {name} has no default for it"
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.name not in node and parameter.name not in FACTS[group]
    ]


def _out_of_range(group: str, node: DictConfig) -> list[str]:
    """Values that the annotations of the group's constructor do not allow."""
    if "_target_" not in node:
        return []
    annotations = annotations_of(node["_target_"])
    return [
        found
        for key in map(str, node)
        if key in annotations and not OmegaConf.is_missing(node, key)
        if (found := problem(f"{group}.{key}", _plain(node[key]), annotations[key]))
    ]


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _parameters(target: str) -> set[str]:
    try:
        return set(parameters_of(target))
    except (ImportError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"_target_={target} cannot be used: {error}") from error


def _warn(config: DictConfig) -> None:
    def value(key: str) -> Any:
        return OmegaConf.select(config, key)

    if value("algo.engine") == "learn2learn" and value("algo.task_chunk") not in (None, 0, 1):
        log.warning("algo.task_chunk has no effect with algo.engine=learn2learn, which loops over tasks")
    normalised = _parameters(value("backbone._target_")) | _parameters(value("algo._target_"))
    if value("bn") in ("support", "running") and "bn" not in normalised:
        log.warning("bn=%s has no effect: nothing in the chosen algo and backbone has batch normalisation", value("bn"))
    if (value("run.val_every") or 0) > (value("run.steps") or math.inf):
        log.warning("run.val_every is above run.steps: the run is validated once, at its end")
    if value("data.trainval"):
        log.warning("data.trainval=true: classes of val are trained on, so the best step by validation means little")
    if (value("run.test_tasks") or math.inf) < 600:
        log.warning("run.test_tasks=%s is few for a number to believe; papers use 600 or more", value("run.test_tasks"))
