"""What `metarun eval RUN KEY=VALUE,VALUE ...` makes of what was typed, and of a run's settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from test_contract import parts_of

from metarun.app.jobs.fitted_weights import fit_weights
from metarun.app.jobs.retest_settings import list_changes, list_combinations, make_settings
from metarun.core.errors import ConfigError
from metarun.core.known_source import find_untold
from metarun.report.retests import warn_of_seen
from metarun.settings.reopen import SavedSettings

Settings = Callable[..., DictConfig]


def saved(config: DictConfig, data: str = "glyphs") -> SavedSettings:
    return SavedSettings(config, {"data": data})


def test_every_combination_of_values_is_tested_in_every_mode_on_the_machine_that_was_asked_for() -> None:
    values, modes, machine = list_combinations(
        [
            "data.k_shot=1,5",
            "bn=support,transductive",
            "data=cub,omniglot",
            "threads=2",
            "device=cpu",
            "paths.data=here",
        ]
    )
    assert values == [
        {"data.k_shot": shots, "data": data, "paths.data": "here"} for shots in (1, 5) for data in ("cub", "omniglot")
    ]
    assert (modes, machine) == (["support", "transductive"], {"threads": 2, "device": "cpu"})


def test_nothing_typed_is_one_test_as_the_run_was_tested() -> None:
    assert list_combinations([]) == ([{}], [], {})


def test_of_several_sources_each_gets_the_settings_that_it_has() -> None:
    typed = ["data=cifar_fs,folder,omniglot,union", "data.path=a,b", "data.within_alphabet=true", "data.typo=1"]
    typed += ["+data.members.folder.path=c"]
    assert list_combinations(typed)[0] == [
        {"data": "cifar_fs", "data.typo": 1},  # which is refused, and tested once
        {"data": "folder", "data.path": "a", "data.typo": 1},
        {"data": "folder", "data.path": "b", "data.typo": 1},
        {"data": "omniglot", "data.within_alphabet": True, "data.typo": 1},
        {"data": "union", "data.typo": 1, "data.members.folder.path": "c"},
    ]


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("data.k_shot=range(1,4)", [1, 2, 3]),
        ("data.k_shot=2", [2]),
        ("algo.report_steps=[1,2]", [[1, 2]]),
        ("algo.report_steps=[1,2],[3]", [[1, 2], [3]]),
        ("algo.test_inner_steps=1,3", [1, 3]),
        ("run.test_tasks=600", [600]),
        ("run.eval_batch_size=4", [4]),
        ("data.std=[0.5]", [[0.5]]),
    ],
)
def test_values_have_the_types_that_they_have_in_other_commands(word: str, values: list[Any]) -> None:
    assert list_combinations([word])[0] == [{word.partition("=")[0]: value} for value in values]


@pytest.mark.parametrize(
    "word",
    [
        "seed=1", "optim.lr=0.1", "run.steps=4", "run.val_tasks=9", "~algo", "algorithm=protonet",
        "backbone=mlp", "data.train.k_shot=2", "data.train.n_way=2", "~data.k_shot", "~bn", "logger=none",
        "precision=bf16", "database=1",
    ],
)  # fmt: skip
def test_what_was_trained_or_changes_nothing_in_a_test_is_refused(word: str) -> None:
    with pytest.raises(ConfigError) as error:
        list_combinations(["data.k_shot=1", word])
    assert str(error.value).startswith(f"{word} changes nothing in a test, or what was trained; eval takes data=, ")


def test_a_test_has_what_is_typed_and_else_what_the_run_has_and_leaves_the_runs_settings_alone(full: Settings) -> None:
    run = saved(full("algo=protonet", "data.k_shot=2"))
    before: Any = OmegaConf.to_container(run.config)
    test = make_settings(run, (1, 28, 28), {"data.n_query": 7, "run.test_tasks": 9})
    expected: Any = OmegaConf.to_container(run.config)
    expected["data"]["n_query"], expected["run"]["test_tasks"] = 7, 9
    expected["data"]["train"]["n_way"] = 5  # of tasks that are not drawn, and so need no classes
    assert (OmegaConf.to_container(test.config), test.choices["data"]) == (expected, "glyphs")
    assert OmegaConf.to_container(run.config) == before


def test_tasks_of_another_source_are_shaped_as_those_that_the_run_was_tested_on_but_for_what_is_typed(
    full: Settings,
) -> None:
    """Glyphs have 15 queries and CUB 15 as shipped; pixels are as many as the network takes."""
    run = saved(full("algo=protonet", "data.n_way=4", "data.k_shot=2", "data.n_query=3", "data.train.n_way=6"))
    test, cub = make_settings(run, (1, 28, 28), {"data": "cub", "data.k_shot": 5}), full("data=cub").data
    data = test.resolve().data
    assert (test.choices["data"], data["_target_"]) == ("cub", cub._target_)
    assert [data[key] for key in ("n_way", "k_shot", "n_query", "image_size")] == [4, 5, 3, 28]
    assert make_settings(run, (7,), {"data": "cub"}).node("data")["image_size"] == cub.image_size


def test_a_test_of_more_ways_does_not_ask_for_as_many_classes_to_train_on(full: Settings) -> None:
    """ProtoNet makes its classes of each task; a head of the run's size stays as it is."""
    data = make_settings(saved(full("algo=protonet")), (1, 28, 28), {"data.n_way": 9}).node("data")
    assert (data["n_way"], data["train"]["n_way"]) == (9, 9)
    with pytest.raises(ConfigError, match=r"data.n_way=9: this MAML has a head for 5 classes; leave data.n_way=5"):
        make_settings(saved(full()), (1, 28, 28), {"data.n_way": 9})
    assert make_settings(saved(full()), (1, 28, 28), {"data.n_way": 5}).node("data")["n_way"] == 5


def test_another_algorithm_tests_with_the_runs_own_settings_where_both_have_them(full: Settings) -> None:
    """ANIL comes with 5 and 10 inner steps; MAML's weights are tested with MAML's own, or with what is typed."""
    run = SavedSettings(full("algo.inner_lr=0.7", "algo.inner_steps=2"), {"data": "glyphs", "algo": "maml"})
    test = make_settings(run, (1, 28, 28), {"algo": "anil", "algo.test_inner_steps": 4})
    algo = test.node("algo")
    assert (test.choices["algo"], algo["_target_"]) == ("anil", "metarun.algos.gradient.anil.ANIL")
    assert [algo[key] for key in ("inner_lr", "inner_steps", "test_inner_steps")] == [0.7, 2, 4]
    wider = make_settings(run, (1, 28, 28), {"algo": "protonet", "data.n_way": 9})  # which has no head of 5 classes
    assert wider.node("data")["n_way"] == 9


def test_a_head_on_features_has_its_own_rate_and_not_that_of_the_run(full: Settings) -> None:
    """MAML's rate is for its weights, TIM's for features of length 1."""
    run = SavedSettings(full("algo.inner_lr=0.7", "algo.test_inner_steps=2"), {"data": "glyphs", "algo": "maml"})
    algo = make_settings(run, (1, 28, 28), {"algo": "tim", "algo.temperature": 9.0}).node("algo")
    assert [algo[key] for key in ("inner_lr", "test_inner_steps", "temperature")] == [0.001, 100, 9.0]


def test_a_result_tells_what_was_changed_but_for_its_tasks_and_places() -> None:
    values = {
        "data": "cub", "data.k_shot": 5, "data.path": "here", "paths.data": "there", "run.test_tasks": 600,
        "algo.report_steps": [1], "algo": "anil", "algo.inner_lr": 0.1, "data.mean": [0.5],
    }  # fmt: skip
    assert list_changes(values) == {"algo": "anil", "algo.inner_lr": 0.1, "data.mean": [0.5]}


@pytest.mark.parametrize(
    ("own", "other", "said"),
    [
        ("glyphs", "sinusoid", "data=sinusoid: its tasks are functions, and the run's were classes"),
        ("sinusoid", "glyphs", "data=glyphs: its tasks are classes, and the run's were functions"),
    ],
)
def test_functions_and_classes_are_not_tested_by_one_run(full: Settings, own: str, other: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_settings(saved(full(f"data={own}"), own), (1,), {"data": other})
    assert str(error.value) == said


def test_a_wrong_value_is_told_as_in_other_commands(full: Settings) -> None:
    with pytest.raises(ConfigError, match=r"data.k_shot=0 must be a whole number of at least 1"):
        make_settings(saved(full("algo=protonet")), (1, 28, 28), {"data.k_shot": 0})


def test_a_test_on_classes_that_may_have_been_trained_on_is_told() -> None:
    named, numbered = {"cifar100/apple", "cifar100/seal"}, {"cifar100, numbered by fc100/test/0003"}
    assert find_untold(named, numbered) == find_untold(numbered, named) == ["cifar100"]
    assert find_untold(named, {"cifar100/bee", "imagenet, numbered by mini_imagenet/test/0003"}) == []
    assert find_untold(numbered, {"cifar100, numbered by fc100/train/0003"}) == []
    tests = [{"data": name, "seen": [], "untold": worlds} for name, worlds in (("fc100", ["cifar100"]), ("cub", []))]
    assert warn_of_seen(tests) == [
        "fc100: it is not known whether the run was trained on its classes: files of cifar100 that have no names of "
        "classes were read"
    ]


@pytest.mark.parametrize("bn", ["transductive", "running"])
def test_what_another_head_has_no_use_for_is_named_but_for_averages_that_the_mode_leaves_out(
    settings: Settings, caplog: pytest.LogCaptureFixture, bn: str
) -> None:
    few = ["backbone.hidden=4", "logger=none"]
    trained = parts_of(settings("algo=baseline", "bn=running", *few)).learner
    head = parts_of(settings("algo=protonet", f"bn={bn}", *few)).learner
    caplog.clear()
    caplog.set_level("INFO")
    fit_weights(head, trained.state_dict(), "protonet", "baseline")
    assert caplog.messages == [
        "algo=protonet has no use for classifier.weight, classifier.bias, which baseline trained"
    ]
    if bn == "running":
        averages = {name: value for name, value in trained.state_dict().items() if name.endswith("running_mean")}
        assert averages
        assert all(torch.equal(value, head.state_dict()[name]) for name, value in averages.items())
