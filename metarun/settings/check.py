"""Rules across groups: every problem with the settings, in one report, before any data is opened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from metarun.algos.base.features import FeatureHead
from metarun.core.errors import ConfigError, suggest
from metarun.settings.advise import advise
from metarun.settings.conf import GROUPS, list_shipped
from metarun.settings.many_shapes import check_algo_and_data, find_shape_problem
from metarun.settings.ranges import describe_problem, find_annotations, find_parameters
from metarun.settings.roles import find_problem
from metarun.settings.schema import BUILD_ANNOTATIONS, BUILD_KEYS, OWN_ANNOTATIONS, Config

# Facts that build.py hands to whichever constructor asks for them.
FACTS = {
    "data": {"plan", "device", "open_source"},
    "backbone": {"input_shape", "bn", "normalisation"},
    "algo": {
        "backbone", "bn", "input_shape", "n_way", "outputs", "objective", "train_classes", "prior", "normalisation",
        "control", "support_shape", "domains",
    },
    "optim": {"params"},
    "optim.schedule": {"optimizer"},
    "run": {"parts"},
    "logger": {"info"},
}  # fmt: skip

HYDRAS: Mapping[str, Any] = {
    "_target_": str,
    "_partial_": bool,
    "_convert_": Literal["none", "partial", "object", "all"],
    "_recursive_": bool,
}
"""Keys that tell Hydra how to make an object. build.py sees to all but `_target_` by itself."""

NEEDED = {"optim": ("clip_norm", "schedule")}
"""Keys of a group that build.py cannot do without."""

SIZES = ("n_way", "k_shot", "n_query")
"""The sizes of tasks that a source may have among its settings."""

NO_BACKBONE = "torch.nn.Identity"


def check(
    config: DictConfig,
    choices: Mapping[str, Any] = MappingProxyType({}),
    own: Sequence[str] = (),
    typed: Sequence[str] = (),
) -> None:
    """Raise ConfigError with all problems of `config`, one per line; warn of what is doubtful.

    Args:
        choices, own, typed: see `advise`.
    """
    refuse(config)
    advise(config, choices, own, typed)


def refuse(config: DictConfig) -> None:
    """Raise ConfigError with all problems of `config`, one per line."""
    _raise(_find_misshapen(config))
    parts = list(_list_parts(config))
    _raise(find_problem(kind, f"{key}._target_", node.get("_target_")) for kind, key, node in parts)
    # First, because data that do not fit refer to settings that are not there.
    _raise([_check_kinds(config.algo["_target_"], config.data)])
    no_match = _check_algo_and_backbone(config)
    problems, ranges = [no_match], list[tuple[str, bool]]()
    for key, own in OWN_ANNOTATIONS.items():
        node = (OmegaConf.select(config, key) if key else config) or {}
        if not isinstance(node, DictConfig):
            continue  # which is told with what is above it
        problems += _of_others(key, node, own) if key else []
        ranges += _find_out_of_range(node, f"{key}." if key else "", own)
    for kind, key, node in parts:
        if kind == "backbone" and no_match:
            continue  # what data and algo say of the backbone is meant for another one
        problems += _find_unknown(kind, key, node) + _find_missing(kind, key, node)
        if kind == "optim.schedule" and config.run.get("steps") == 0:
            continue  # none is made
        ranges += _find_out_of_range(
            node, f"{key}.", {**find_annotations(node["_target_"]), **BUILD_ANNOTATIONS.get(kind, {}), **HYDRAS}
        )
    problems += [found for found, refers in ranges if not refers]
    problems.append(find_shape_problem(config, has_head(config.algo["_target_"])))
    _raise([*problems, check_algo_and_data(config.algo["_target_"], config.data)])
    _raise(found for found, _ in ranges)


def has_head(algo: str) -> bool:
    """Return whether the algorithm's class `algo` is built for a fixed number of classes."""
    return bool({"outputs", "n_way"} & _list_parameters(algo))


def is_feature_head(algo: str) -> bool:
    """Return whether the algorithm's class `algo` is a head on features, with rates in the units of these."""
    return issubclass(get_object(algo), FeatureHead)


def _check_kinds(algo: str, data: DictConfig) -> str | None:
    """Return a problem if the data's tasks are of no kind that the algorithm can learn."""
    found = getattr(get_object(data["_target_"]), "kinds", ("classification" if "n_way" in data else "regression",))
    kinds = get_object(algo).kinds
    names = algo.rpartition(".")[2], data["_target_"].rpartition(".")[2]
    if not set(kinds) & set(found):
        are = " and ".join(found)
        return (
            f"{names[0]} is for {' and '.join(kinds)}; the tasks of {names[1]} are {are}: choose another algo or data"
        )
    return None


def _check_algo_and_backbone(config: DictConfig) -> str | None:
    """Return a problem if the algorithm lacks a backbone, or has one that it does not use."""
    name = config.algo["_target_"].rpartition(".")[2]
    asked, given = "backbone" in _list_parameters(config.algo["_target_"]), config.backbone["_target_"] != NO_BACKBONE
    if asked and not given:
        return f"{name} needs a network: choose another backbone than none"
    if given and not asked:
        return f"{name} has no use for a backbone, all that it has are the settings of algo: set backbone=none"
    return None


def _list_root_keys() -> list[str]:
    return list(Config.__dataclass_fields__)


def _find_misshapen(config: DictConfig) -> Iterator[str]:
    """Find missing keys, and values where a group of settings must be; nothing else can be checked before."""
    for key in map(str, config):
        if key not in _list_root_keys():
            yield f"there is no setting {key}{suggest(key, _list_root_keys())}"
    for key in _list_root_keys():
        if key not in config:
            yield f"{key} is missing{_name_choices(key)}"
    for key in (*GROUPS, "optim.schedule", "data.train", "optims", "paths", "sweep"):
        found = OmegaConf.select(config, key)
        if _has(config, key) and not isinstance(found, DictConfig):
            yield f"{key}={'null' if found is None else found} is no group of settings{_name_choices(key)}"
    for name, own in _list_items(config, "optims"):
        if not isinstance(own, DictConfig) or not isinstance(own.get("schedule", own), DictConfig):
            yield f"optims.{name}={own} must be settings in place of those of optim, as {{lr: 0.01}}"


def _name_choices(group: str) -> str:
    """Return the choices of a group, in words."""
    known = list_shipped(group.replace(".", "/"))
    return f": choose one, as {group.replace('.', '/')}={', '.join(known)}" if known else ""


def _list_items(config: DictConfig, key: str) -> list[tuple[str, Any]]:
    node = config.get(key)
    return [(str(name), node[name]) for name in node] if isinstance(node, DictConfig) else []


def _list_parts(config: DictConfig) -> Iterator[tuple[str, str, Any]]:
    """List what build.py constructs, each with its kind, its key and its settings."""
    for group in GROUPS:
        yield group, group, config[group]
    if "schedule" in config.optim:
        yield "optim.schedule", "optim.schedule", config.optim.schedule
    for name, own in _list_items(config, "optims"):
        yield "optim", f"optims.{name}", {**config.optim, **own}
        if "schedule" in own:
            yield "optim.schedule", f"optims.{name}.schedule", own.schedule


def _has(config: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return isinstance(node, DictConfig) and name in node


def _find_unknown(kind: str, group: str, node: Any) -> list[str]:
    """Find keys that the constructor of the group does not have."""
    known = _list_parameters(node["_target_"]) - FACTS[kind] | BUILD_KEYS.get(kind, set())
    return [
        f"there is no setting {group}.{key}{suggest(f'{group}.{key}', [f'{group}.{name}' for name in sorted(known)])}"
        for key in map(str, node)
        if key not in HYDRAS and key not in known
    ]


def _of_others(group: str, node: Any, own: Mapping[str, Any]) -> list[str]:
    """Keys that a group without a constructor does not have, and those of `paper` that it lacks."""
    lacking = [key for key in own if key not in node] if group == "paper" and node else []
    return [f"there is no setting {group}.{key}{suggest(str(key), own)}" for key in node if key not in own] + [
        f"{group}.{key} is missing" for key in lacking
    ]


def _find_missing(kind: str, group: str, node: Any) -> list[str]:
    """Find missing keys that the group's constructor, or build.py, requires."""
    name = node["_target_"].rpartition(".")[2]
    return [
        f"{group}.{parameter.name} is missing: {name} has no default for it"
        for parameter in find_parameters(node["_target_"]).values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.name not in node and parameter.name not in FACTS[kind]
    ] + [f"{group}.{key} is missing" for key in [*NEEDED.get(kind, ()), *_list_sizes(kind, node)] if _lacks(node, key)]


def _lacks(node: Any, key: str) -> bool:
    first, _, rest = key.partition(".")
    return first not in node or (bool(rest) and _lacks(node[first], rest))


def _list_sizes(kind: str, node: Any) -> list[str]:
    """List the keys of `data` that the others ask for: tasks of training have the sizes that those of tests have."""
    train = node.get("train") if kind == "data" else None
    sizes = [key for key in SIZES if key in node or key in train] if isinstance(train, DictConfig) else []
    alpha = ["alpha"] if kind == "data" and node.get("query") == "dirichlet" else []
    return [*sizes, *(f"train.{key}" for key in sizes), *alpha]


def _find_out_of_range(node: Any, prefix: str, annotations: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Find values that the annotations do not allow, each with whether it refers to another setting."""
    for name, annotation in annotations.items():
        of_config = isinstance(node, DictConfig)
        if name not in node or (of_config and OmegaConf.is_missing(node, name)):
            continue
        if found := describe_problem(f"{prefix}{name}", _read_plainly(node[name]), annotation):
            yield found, of_config and OmegaConf.is_interpolation(node, name)


def _raise(problems: Iterable[str | None]) -> None:
    if found := [one for one in problems if one]:
        raise ConfigError("\n".join(dict.fromkeys(found)))


def _read_plainly(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _list_parameters(target: str) -> set[str]:
    return set(find_parameters(target))
