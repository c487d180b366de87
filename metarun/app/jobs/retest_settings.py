"""What `metarun eval RUN KEY=VALUE,VALUE ...` asks for: a run's settings, and those of each test."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from metarun.core.errors import ConfigError
from metarun.settings.check import has_head, refuse
from metarun.settings.conf import shipped
from metarun.settings.saved import open_settings

SHAPE = ("n_way", "k_shot", "n_query")
"""What a task of another source has as those that the run was tested on, unless it is typed."""

MACHINE = ("device", "threads")

TYPED = ("data", "bn", *MACHINE, "run.test_tasks", "run.eval_batch_size", "algo.report_steps")
UNDER = ("data.", "paths.", "algo.test_")
"""Settings that no training depends on."""


def saved_settings(folder: Path) -> tuple[DictConfig, str]:
    """The settings of the run in `folder`, resolved but for those of data and paths, and its choice of `data=`.

    Raises: ConfigError if there is no run.
    """
    config, hydra = open_settings(folder)
    whole = config.copy()
    OmegaConf.resolve(whole)
    for group in map(str, config):
        if group not in ("data", "paths"):
            config[group] = whole[group]
    return config, str(hydra.runtime.choices.data)


def combinations(typed: Sequence[str]) -> tuple[list[dict[str, Any]], list[str], dict[str, Any]]:
    """What was typed: every combination of values, by key; BatchNorm modes; and what concerns this machine alone.

    Raises: ConfigError for what cannot be read, or changes what was trained.
    """
    parser = OverridesParser.create()
    values: dict[str, list[Any]] = {}
    for word in typed:
        try:
            override = parser.parse_override(word)
            if not override.is_sweep_override():
                found = [override.value()]
            else:
                one_by_one = override.sweep_string_iterator()
                found = [parser.parse_override(f"{override.get_key_element()}={value}").value() for value in one_by_one]
        except HydraException as error:
            raise ConfigError(f"{word} cannot be read: {str(error).splitlines()[0]}") from error
        key = override.key_or_group
        if override.is_delete() or not (key in TYPED or key.startswith(UNDER)) or key.startswith("data.train"):
            raise ConfigError(
                f"{word} changes nothing in a test, or what was trained; eval takes data=, data.KEY=, bn=, "
                "run.test_tasks=, run.eval_batch_size=, algo.test_inner_steps=, device=, threads=, paths.data="
            )
        values[key] = found
    modes = [str(mode) for mode in values.pop("bn", [])]
    machine = {key: values.pop(key)[0] for key in MACHINE if key in values}
    return [dict(zip(values, found, strict=True)) for found in itertools.product(*values.values())], modes, machine


def settings_for(
    config: DictConfig, own: str, input_shape: tuple[int, ...], values: Mapping[str, Any]
) -> tuple[DictConfig, str]:
    """The settings of a test, and its choice of `data=`.

    Args:
        config: the run's settings.
        own: its choice of data.
        input_shape: of its network; images of another source are decoded in that size, if the source can.
        values: by key, what the test changes.
    Raises: ConfigError if they do not fit the source or what was trained.
    """
    test, name = config.copy(), str(values.get("data", own))
    if name != own:
        test.data = shipped(name)
        for key in SHAPE:
            if key in test.data and key in config.data:
                test.data[key] = config.data[key]
        if "image_size" in test.data and len(input_shape) == 3:
            test.data.image_size = input_shape[-1]
    for key, value in values.items():
        if key != "data":
            OmegaConf.update(test, key, value)
    if ("n_way" in test.data) != ("n_way" in config.data):
        found, learned = (("functions", "classes")["n_way" in node] for node in (test.data, config.data))
        raise ConfigError(f"data={name}: its tasks are {found}, and the run's were {learned}")
    if "n_way" in test.data:
        if has_head(config.algo["_target_"]) and test.data.n_way != config.data.n_way:
            learner = config.algo["_target_"].rpartition(".")[2]
            raise ConfigError(
                f"data.n_way={test.data.n_way}: this {learner} has a head for {config.data.n_way} classes; leave "
                f"data.n_way={config.data.n_way}, or train one that makes its head for each task, as algo=proto_maml"
            )
        test.data.train.n_way = test.data.n_way  # of tasks that are not drawn
    refuse(test)
    return test, name
