"""Settings that were typed and have no effect, because of what stands elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from metarun.algos.base.untrained import Untrained
from metarun.core.command import find_key
from metarun.core.ranges import CountsBeside, show_value
from metarun.settings.ranges import find_marks

TRAINING_TASKS = {
    "data.train.n_way": ("episodes",),
    "data.train.k_shot": ("episodes", "streams"),
    "data.train.n_query": ("episodes", "streams"),
    "data.wide": ("episodes",),
    "data.labels": ("episodes",),
}
"""Settings of training tasks, and the streams that they are of."""

STREAMS = {"examples": "single examples", "streams": "streams of classes", "pairs": "pairs of domains"}
"""What training draws, in words."""

DEFAULTS = {"data.steps": "run.steps", "data.wide": "data.train.n_way"}
"""Settings that count only where another one refers to them."""


def find_unused(config: DictConfig, typed: Sequence[str]) -> Iterator[str]:
    """Find settings that the method has no use for, among those that were typed.

    Args:
        config: not resolved.
        typed: the words of the command line.
    """
    for word in typed:
        key = find_key(word).replace("/", ".")
        if why := _explain_empty(config, key, word.partition("=")[2]) or _explain(config, key):
            yield f"{word} has no effect: {why}"


def _explain_empty(config: DictConfig, key: str, value: str) -> str | None:
    """Explain that settings are added to a group, so that none of them leaves it as it was."""
    group = OmegaConf.select(config, key)
    empty = value.replace(" ", "") == "{}" and OmegaConf.is_dict(group) and bool(group)
    return f"it changes no setting of {key}; type {key}.KEY=VALUE" if empty else None


def _explain(config: DictConfig, key: str) -> str | None:
    """Explain why a setting has no effect; None if it has one, as far as is known here."""
    algo = get_object(config.algo["_target_"])
    if why := getattr(get_object(config.run["_target_"]), "unused", {}).get(key):
        return f"with run={config.run['_target_'].split('.')[-2]} {why}"
    if key.startswith(("optim.", "optims.")):
        return _explain_no_optimizer(config)
    if key in TRAINING_TASKS and config.run.get("steps") == 0:
        return "run.steps=0, so that nothing is learned"
    if key in TRAINING_TASKS and not {*TRAINING_TASKS[key]} & {*algo.trains_on}:
        streams = " and ".join(STREAMS.get(name, name) for name in algo.trains_on)
        return f"{_name_algo(config)} trains on {streams}, and tasks are for its tests"
    if key in DEFAULTS and f"${{{key}}}" not in str(OmegaConf.to_container(config)):
        other = DEFAULTS[key]
        who = _name_algo(config) if other.startswith("data.") else "the run"
        return f"{who} trains with {other}={OmegaConf.select(config, other)}"
    return _explain_neighbour(config, key)


def _explain_neighbour(config: DictConfig, key: str) -> str | None:
    """Explain that a setting of the method counts only beside other choices of another group."""
    group, _, name = key.partition(".")
    mark = find_marks(config.algo["_target_"], CountsBeside).get(name) if group == "algo" else None
    if mark is None:
        return None
    target, wanted = str(config[mark.group]["_target_"]), " or ".join(mark.values)
    if mark.group == "run":
        return None if target.split(".")[-2] in mark.values else f"it counts with run={wanted}"
    own = "classification" if "n_way" in config.data else "regression"
    kinds = getattr(get_object(target), "kinds", (own,))
    return None if {*kinds} & {*mark.values} else f"it counts with tasks of {wanted}, and these are {kinds[0]}"


def _name_algo(config: DictConfig) -> str:
    return str(config.algo["_target_"]).rpartition(".")[2]


def _explain_no_optimizer(config: DictConfig) -> str | None:
    """Explain why the run has no outer optimizer; None if it has one."""
    algo = get_object(config.algo["_target_"])
    if issubclass(algo, Untrained):
        return f"{_name_algo(config)} learns nothing"
    if config.run.get("steps") == 0:
        return "run.steps=0, so that nothing is learned"
    condition = algo.optim_counts_with
    if condition and condition.other in config.algo and not condition.counts(value := config.algo[condition.other]):
        other = f"algo.{condition.other}"
        return f"with {other}={show_value(value)} there is no optimizer; it counts with {condition.describe(other)}"
    return None
