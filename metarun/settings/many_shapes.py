"""Whether tasks may have many shapes, `data.n_way=[5,50]` or `data.k_shot=by_size`, with what else is set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from metarun.core.ranges import BY_SIZE
from metarun.settings.ranges import find_parameters

ONE_SHAPE = "tasks of one shape: set data.n_way and data.k_shot to one number each, and those of data.train"


def varies(node: Mapping[str, Any]) -> bool:
    """Return whether the tasks of `data` or `data.train` have many shapes."""
    return OmegaConf.is_list(node.get("n_way")) or node.get("k_shot") == BY_SIZE


def find_shape_problem(config: DictConfig, has_head: bool) -> str | None:
    """Return what keeps tasks from having the shapes that are set; None if nothing does.

    Args:
        has_head: whether the algorithm is built for a fixed number of classes.
    """
    data = config.data
    train = data.get("train") if isinstance(data.get("train"), DictConfig) else {}
    if not (varies(data) or varies(train)):
        return None
    for key, node in (("data.n_way", data), ("data.train.n_way", train)):
        if has_head and OmegaConf.is_list(node.get("n_way")):
            return f"{key}={node['n_way']} must be one number: the chosen algo has a head of that size"
    for group, unless_said in (("data", False), ("algo", False), ("run", True)):
        target = config[group]["_target_"]
        if not getattr(get_object(target), "many_shapes", unless_said):
            name = target.rpartition(".")[2]
            return f"{name} is for {ONE_SHAPE}"
    if data.get("query") == "dirichlet" and varies(data):
        return f"data.query=dirichlet is for {ONE_SHAPE}"
    return f"data.labels=fixed is for {ONE_SHAPE}" if data.get("labels") == "fixed" else None


def check_algo_and_data(algo: str, data: DictConfig) -> str | None:
    """Return what keeps the algorithm from learning tasks of the data's sizes; None if nothing does."""
    if "n_way" in data and OmegaConf.is_list(OmegaConf.select(data, "train.k_shot")):
        return f"data.train.k_shot={data.train.k_shot} must be one number where tasks have classes"
    heads = {"outputs", "n_way"} & find_parameters(algo).keys() and "n_way" in data and "n_way" in data.get("train", {})
    if heads and data.train.n_way != data.n_way:
        return (
            f"data.train.n_way={data.train.n_way} must be data.n_way={data.n_way}: "
            "the chosen algo has a head of that size"
        )
    return None
