"""A setting above the number of what it counts does what that number does, and is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import DictConfig
from test_settings_matter import TINY, Learned, Ran, same, set_in

from metarun.core.ranges import Mark, UpTo
from metarun.settings.advise import advise
from metarun.settings.beyond import COUNTS
from metarun.settings.conf import GROUPS, list_shipped, read_shipped
from metarun.settings.ranges import find_marks

BEYOND = [  # the number, and a value above it
    (["algo=rl2", "data=bandits", "run.meta_batch_size=2"], "algo.minibatches", 2, 7),
    (["algo=laplacian_shot", "data.n_way=3", "data.n_query=2"], "algo.neighbours", 5, 6),
    (["algo=reptile", "data.train.n_way=3", "data.train.k_shot=1"], "algo.inner_batch_size", 3, 4),
    (["algo=reptile", "data=sinusoid", "data.k_shot=2"], "algo.test_inner_batch_size", 2, 9),
    (["algo=metanet", "data.train.k_shot=2", "data.k_shot=2"], "algo.chunks", 10, 11),
    (["algo=learned_optimizer", "data=quadratics", "algo.inner_steps=3"], "algo.unroll", 3, 5),
    (["algo=gp_oracle", "data=gp", "data.kernel=rbf", "data.period=[1,2]"], "algo.nodes", 1, 4),
    (["algo=cavia", "data=sinusoid", "backbone=mlp_small"], "algo.layer", 2, 3),
    (["algo=cavia", "data=sinusoid", "backbone=mlp_small", "backbone.widths=[4,3,2]"], "algo.layer", 3, 7),
    (["algo=cavia", "backbone=conv4", "backbone.layers=2"], "algo.layer", 2, 3),
    (["algo=protonet", "run.steps=4", "run.val_every=3"], "run.ensemble", 2, 3),
    (["algo=protonet", "run.steps=25", "run.val_every=null"], "run.patience", 9, 10),
    (["algo=finetune_in_turn", "run=continual", "run.tasks=2"], "run.score_every", 2, 5),
    (["algo=protonet", "backbone=resnet12", "data=omniglot", "data.image_size=40"], "backbone.block_size", 5, 6),
]


def tell(full: Callable[..., DictConfig], words: list[str], caplog: pytest.LogCaptureFixture) -> str:
    caplog.clear()
    advise(full(*words), {}, (), words)
    return caplog.text


@pytest.mark.parametrize(("words", "key", "most", "above"), BEYOND)
def test_a_setting_above_the_number_of_what_it_counts_is_told(
    full: Callable[..., DictConfig],
    caplog: pytest.LogCaptureFixture,
    words: list[str],
    key: str,
    most: int,
    above: int,
) -> None:
    assert f"{key}={above} is above the number of " in (told := tell(full, [*words, f"{key}={above}"], caplog))
    assert f", {most}, and does what {most} does" in told
    assert "is above the number of" not in tell(full, [*words, f"{key}={most}"], caplog)


def test_it_is_told_where_only_the_number_was_typed_and_not_where_neither_was(
    full: Callable[..., DictConfig], caplog: pytest.LogCaptureFixture
) -> None:
    few = ["algo=rl2", "data=bandits", "run.meta_batch_size=3"]
    assert "algo.minibatches=4 is above the number of tasks of an outer step, 3, and" in tell(full, few, caplog)
    assert "is above" not in tell(full, ["data=gp", "algo=gp_oracle", "backbone=none"], caplog)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["optim/schedule=milestones", "run.steps=300"],
            "at=[20000, 40000, 50000] changes no rate at 20000, 40000, 50000",
        ),
        (["optim/schedule=milestones", "run.steps=40000"], "at=[20000, 40000, 50000] changes no rate at 40000, 50000"),
        (["optim/schedule=step", "run.steps=2000"], "step_size=2000 changes no rate at 2000: the run ends after"),
        (["optim/schedule=step", "run.steps=2001"], None),
        (["optim/schedule=milestones", "run.steps=50001"], None),
        (["algo=protonet", "run.steps=3"], None),
    ],
)
def test_a_schedule_that_was_typed_and_comes_after_the_run_is_told(
    full: Callable[..., DictConfig], caplog: pytest.LogCaptureFixture, words: list[str], told: str | None
) -> None:
    said = tell(full, words, caplog)
    assert f"optim.schedule.{told}" in said if told else "changes no rate" not in said


def test_shots_that_classes_decide_are_of_no_known_number(
    full: Callable[..., DictConfig], caplog: pytest.LogCaptureFixture
) -> None:
    words = ["algo=reptile", "algo.test_inner_batch_size=900", "data.k_shot=by_size"]
    assert "is above" not in tell(full, words, caplog)


SAME = [BEYOND[0], *(pytest.param(*case, marks=pytest.mark.slow) for case in BEYOND[1:11])]


@pytest.mark.parametrize(("words", "key", "most", "above"), SAME)
def test_it_does_what_the_number_does(
    full: Callable[..., DictConfig], cache: Path, tmp_path: Path, words: list[str], key: str, most: int, above: int
) -> None:
    outcomes = []
    for value in (most, above):
        config = full(
            *words, f"{key}={value}", f"paths.cache={cache}", "logger=none", f"paths.outputs={tmp_path / str(value)}"
        )
        typed = {word.partition("=")[0] for word in words} | {key}
        set_in(config, {name: number for name, number in TINY.items() if name not in typed})
        outcomes.append((Ran if key.startswith("run.") else Learned)(config))
    assert same(*outcomes)


def test_a_class_that_states_a_setting_of_its_base_anew_keeps_what_it_counts_with() -> None:
    lost = []
    for group in GROUPS:
        for name in list_shipped(group):
            target = str(read_shipped(name, group)["_target_"])
            cls = get_object(target)
            for base in getattr(cls, "__mro__", ())[1:]:
                if base.__module__.startswith("metarun.") and "__init__" in vars(base):
                    marks = find_marks(f"{base.__module__}.{base.__qualname__}", Mark)
                    own = find_marks(target, Mark)
                    lost += [f"{name}: {key}" for key, mark in marks.items() if own.get(key, mark) != mark]
                    lost += [f"{name}: {key}" for key in marks if key not in own and key in read_shipped(name, group)]
    assert lost == []


def test_each_number_is_counted_for_some_setting() -> None:
    targets = [str(read_shipped(name, group)["_target_"]) for group in GROUPS for name in list_shipped(group)]
    assert {mark.number for target in targets for mark in find_marks(target, UpTo).values()} == set(COUNTS)
