"""What `metarun eval RUN KEY=VALUE,VALUE ...` asks for: the settings of each test."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from metarun.core.errors import ConfigError
from metarun.core.words import abbreviate_task
from metarun.settings.check import has_head, is_feature_head
from metarun.settings.conf import read_shipped
from metarun.settings.names import name_query
from metarun.settings.reopen import SavedSettings
from metarun.settings.schema import Settings
from metarun.settings.typed import read_override

SHAPE = ("n_way", "k_shot", "n_query", "query", "alpha")
"""What a task of another source has as those that the run was tested on, unless it is typed."""

MACHINE = ("device", "threads")

TYPED = ("data", "algo", "bn", *MACHINE, "run.test_tasks", "run.eval_batch_size")
UNDER = ("data.", "paths.", "algo.")
"""Settings that a test may change. Those of `algo` change how the weights are used, which stay as they were trained."""

COMPUTING = ("_target_", "engine", "task_chunk")
"""Settings of an algorithm that do not pass to another one which tests the weights."""

UNTOLD = (
    *(f"data.{key}" for key in (*SHAPE, "path", "root", "cache")), "data", "run.test_tasks", "run.eval_batch_size",
    "algo.report_steps",
)  # fmt: skip
"""Settings that a result tells in other fields, or that do not change a score."""


def list_combinations(
    typed: Sequence[str], own: Sequence[str] = ()
) -> tuple[list[dict[str, Any]], list[str], dict[str, Any]]:
    """List every combination of the typed values by key, the BatchNorm modes, and the settings of this machine.

    Of several sources, each gets the settings that it has: data=cifar_fs,folder data.path=photos is the folder's path.

    Args:
        own: folders of YAML files of one's own.
    Raises: ConfigError for what cannot be read, or changes what was trained.
    """
    values: dict[str, Sequence[Any]] = {}
    for word in typed:
        override = read_override(word)
        key = override.key
        if override.deletes or not (key in TYPED or key.startswith(UNDER)) or key.startswith("data.train"):
            raise ConfigError(
                f"{word} changes nothing in a test, or what was trained; eval takes {'=, '.join(TYPED)}=, data.KEY=, "
                "algo.KEY=, paths.KEY="
            )
        values[key] = override.values
    modes = [str(mode) for mode in values.pop("bn", [])]
    machine = {key: values.pop(key) for key in MACHINE if key in values}
    for key, found in machine.items():
        if len(found) > 1:
            raise ConfigError(f"{key}={','.join(map(str, found))} has several values, and all tests are made with one")
    combinations = [dict(zip(values, found, strict=True)) for found in itertools.product(*values.values())]
    return (
        _share_settings(combinations, values.get("data", ()), own),
        modes,
        {key: found[0] for key, found in machine.items()},
    )


def _share_settings(
    combinations: Sequence[dict[str, Any]], sources: Sequence[Any], own: Sequence[str]
) -> list[dict[str, Any]]:
    """Leave out of each combination the settings that its source lacks and another of `sources` has."""
    known: dict[str, set[str]] = {}
    for name in map(str, sources) if len(sources) > 1 else ():
        with suppress(ConfigError):  # told when it is tested
            known[name] = set(map(str, read_shipped(name, own=own)))
    of_others: set[str] = set().union(*known.values())
    kept = []
    for values in combinations:
        lacking = of_others - known.get(str(values.get("data")), of_others)
        fitting = {
            key: value for key, value in values.items() if key[:5] != "data." or key.split(".")[1] not in lacking
        }
        if fitting not in kept:
            kept.append(fitting)
    return kept


def make_settings(run: SavedSettings, input_shape: tuple[int, ...], values: Mapping[str, Any]) -> SavedSettings:
    """Make the settings of a test.

    With another algorithm, what both have in common stays as the run had it, such as the inner rate and steps; but a
    head on features has its own rate, temperature and the like, in the units of these.

    Args:
        run: the run's settings.
        input_shape: of its network; images of another source are decoded in that size, if the source can.
        values: by key, what the test changes.
    Raises: ConfigError if they do not fit the source or what was trained.
    """
    own, name = run.node("data"), str(values.get("data", run.choices["data"]))
    test = run
    if name != run.choices["data"]:
        test = run.choose("data", name)
        shipped = test.node("data")
        same = {f"data.{key}": own[key] for key in SHAPE if key in shipped and key in own}
        if "image_size" in shipped and len(input_shape) == 3:
            same["data.image_size"] = input_shape[-1]
        test = test.change(same)
    if "algo" in values:
        was, test = run.node("algo"), test.choose("algo", str(values["algo"]))
        if not is_feature_head(test.config.algo["_target_"]):
            same = {f"algo.{key}": was[key] for key in test.config.algo if key in was and key not in COMPUTING}
            test = test.change(same)
    test = test.change({key: value for key, value in values.items() if key not in ("data", "algo")})
    data = test.node("data")
    if ("n_way" in data) != ("n_way" in own):
        found, learned = (("functions", "classes")["n_way" in node] for node in (data, own))
        raise ConfigError(f"data={name}: its tasks are {found}, and the run's were {learned}")
    if "n_way" in data:
        target = test.node("algo")["_target_"]
        if has_head(target) and data["n_way"] != own["n_way"]:
            raise ConfigError(
                f"data.n_way={data['n_way']}: this {target.rpartition('.')[2]} has a head for {own['n_way']} classes; "
                f"leave data.n_way={own['n_way']}, or train one that makes its head for each task, as algo=proto_maml"
            )
        test = test.change({"data.train.n_way": data["n_way"]})  # of tasks that are not drawn
    test.resolve()  # which refuses what is wrong
    return test


def name_test(settings: Settings) -> str:
    """Name a test, for the name of its file."""
    data = settings.data
    if "test_tasks" not in settings.run:
        raise ConfigError(f"run={settings.choices['run']} has a test of its own, as its tasks come: there is no other")
    queries = f"q{data['n_query']}" if "n_query" in data else ""
    task = abbreviate_task(data.get("n_way"), data.get("k_shot"))
    words = [settings.choices["data"], task, queries, name_query(data), settings.bn, str(settings.run["test_tasks"])]
    return "-".join(filter(None, words))


def list_changes(values: Mapping[str, Any]) -> dict[str, Any]:
    """List what a test changes besides its tasks, by key: another algorithm or rate for the same weights."""
    return {key: value for key, value in values.items() if key not in UNTOLD and not key.startswith("paths.")}
