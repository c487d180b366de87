"""Settings that were typed and have no effect, because of what stands elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from metarun.algos.base.pretraining import Pretraining
from metarun.algos.base.untrained import Untrained
from metarun.core.command import find_key
from metarun.core.ranges import show_value

TRAINING_TASKS = ("data.train.n_way", "data.train.k_shot", "data.train.n_query", "data.wide")


def find_unused(config: DictConfig, typed: Sequence[str]) -> Iterator[str]:
    """Find settings that the method has no use for, among those that were typed.

    Args:
        config: not resolved.
        typed: the words of the command line.
    """
    for word in typed:
        key = find_key(word).replace("/", ".")
        if key.startswith(("optim.", "optims.")) and (why := _explain_no_optimizer(config)):
            yield f"{word} has no effect: {why}"
        elif key in TRAINING_TASKS and _is_pretrained(config):
            yield f"{word} has no effect: {_name_algo(config)} trains on single examples, and tasks are for its tests"
        elif key == "data.wide" and "${data.wide}" not in str(OmegaConf.to_container(config)):
            yield f"{word} has no effect: {_name_algo(config)} trains with data.train.n_way={config.data.train.n_way}"


def _name_algo(config: DictConfig) -> str:
    return str(config.algo["_target_"]).rpartition(".")[2]


def _is_pretrained(config: DictConfig) -> bool:
    """Return whether the method draws single examples in training, and nothing else."""
    return get_object(config.algo["_target_"]).train_stream is Pretraining.train_stream


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
