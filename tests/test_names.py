"""The key of a job's settings: jobs that differ in what they do never share a folder, others always do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from omegaconf import DictConfig, ListConfig, OmegaConf

from metarun.settings import names
from metarun.settings.ranges import find_parameters
from metarun.settings.replaced import RENAMED
from metarun.settings.saved import rename_moved

Settings = Callable[..., DictConfig]

ASIDE = {
    "threads": "numbers are the same up to rounding",
    "run.processes": "likewise",
    "sweep.rerun": "which jobs run, not what they do",
    "logger": "where numbers go",
    "paths.data": "where files lie",
    "paths.cache": "likewise",
    "paths.outputs": "likewise",
    "inspect": "how a run is looked at",
    "tags": "what it is called",
    "notes": "likewise",
}
"""Settings, or groups of them, that make no other job, and why."""

COMPOSITIONS = {
    "the default": (),
    "functions": ("algo=cnp", "data=sinusoid"),
    "images from files": ("algo=maml_pp", "data=omniglot", "optim=sgd", "optim/schedule=step", "bn=running"),
    "an experiment": ("+experiment=protonet_omniglot_5w1s",),
}

WORDS = [
    "algo=fomaml", "algo.inner_lr=0.1", "backbone=conv4", "backbone.hidden=9", "data=sinusoid", "data.train.k_shot=2",
    "data.eval_seed=3", "optim=sgd", "optim.lr=0.5", "optim/schedule=linear", "run.steps=7", "seed=1", "bn=support",
    "precision=tf32", "deterministic=true", "device=cuda", "paper={value: 0.5, ci95: null, source: x}",
    "+optims.critic.lr=0.1",
]  # fmt: skip
"""A change in each group and in each setting of the root."""


@pytest.mark.parametrize("word", WORDS)
def test_a_change_in_any_group_makes_another_job(full: Settings, word: str) -> None:
    assert names.make_key(full(word)) != names.make_key(full())


def test_those_changes_are_in_every_group_and_every_setting_of_the_root(full: Settings) -> None:
    changed = {word.lstrip("+").partition("=")[0].partition(".")[0].partition("/")[0] for word in WORDS}
    assert changed | {key.partition(".")[0] for key in ASIDE} == {str(key) for key in full()}


@pytest.mark.parametrize("words", COMPOSITIONS.values(), ids=COMPOSITIONS)
def test_each_setting_makes_another_job_or_is_listed_with_the_reason(full: Settings, words: tuple[str, ...]) -> None:
    config = full(*words)
    before, without_effect = names.make_key(config), set()
    for key in leaves(config):
        other = config.copy()
        OmegaConf.update(other, key, another(OmegaConf.select(config, key)))
        if names.make_key(other) == before:
            without_effect.add("logger" if key.startswith("logger.") else key)
    assert without_effect == set(ASIDE)


def test_the_same_settings_typed_in_another_way_are_the_same_job(full: Settings) -> None:
    """In full, by reference, in another order; and by a run older than run.processes and deterministic."""
    key = names.make_key(full("data.k_shot=2", "seed=1"))
    for words in (
        ["seed=1", "data.k_shot=2"],
        ["data.k_shot=2", "seed=1", "data.train.k_shot=2"],
        ["data.k_shot=2", "seed=1", "optim=adam", "run.steps=300"],
    ):
        assert names.make_key(full(*words)) == key, words
    old = full("data.k_shot=2", "seed=1")
    del old.run.processes, old.deterministic
    assert names.make_key(old) == key


@pytest.mark.parametrize("then", RENAMED)
def test_a_class_that_became_a_setting_of_another_is_renamed_and_makes_the_same_job(full: Settings, then: str) -> None:
    now, added = RENAMED[then]
    config = full()
    config.algo = {"_target_": then, "k": 1}
    key = names.make_key(config)
    rename_moved(config)
    assert config.algo == {"_target_": now, "k": 1, **added}
    assert names.make_key(config) == key
    assert added
    assert added.keys() <= find_parameters(now).keys()
    for name in added:
        config.algo[name] = "another"
        assert names.make_key(config) != key


def leaves(node: DictConfig, prefix: str = "") -> list[str]:
    """The dotted key of each setting, lists taken whole."""
    found: list[str] = []
    for key in map(str, node):
        value = None if OmegaConf.is_missing(node, key) else node[key]
        inner = isinstance(value, DictConfig) and len(value)
        found += leaves(value, f"{prefix}{key}.") if inner else [f"{prefix}{key}"]
    return found


def another(value: Any) -> Any:
    """A value like this one, and not it."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, ListConfig):
        return [*value, 1]
    return f"{value or ''}x"
