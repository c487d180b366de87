"""Settings of a run that is there already: read, changed, resolved; and what is typed to change them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from metarun.app.commands.resume import resume
from metarun.core.errors import ConfigError
from metarun.settings.conf import read_shipped
from metarun.settings.names import make_key
from metarun.settings.reopen import SavedSettings, read_saved_leaves, reopen
from metarun.settings.saved import read_saved_value
from metarun.settings.typed import Override, read_override

Compose = Callable[..., DictConfig]
CHOICES = {"data": "glyphs", "backbone": "conv4", "algo": "maml", "optim": "adam", "run": "offline", "logger": "none"}


@pytest.fixture
def run(full: Compose) -> SavedSettings:
    return SavedSettings(full("backbone=conv4", "logger=none"), CHOICES)


def save(folder: Path, config: DictConfig, mode: str = "RUN") -> Path:
    """A run's folder as Hydra leaves it."""
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(config, folder / ".hydra" / "config.yaml")
    hydra = {"mode": mode, "overrides": {"task": ["seed=1"]}, "runtime": {"choices": CHOICES}}
    OmegaConf.save(OmegaConf.create({"hydra": hydra}), folder / ".hydra" / "hydra.yaml")
    return folder


def test_what_refers_to_a_setting_that_is_changed_follows_it_and_the_first_stays_as_it_was(run: SavedSettings) -> None:
    changed = run.change({"data.k_shot": 3, "bn": "support"}).resolve()
    assert (changed.data["k_shot"], changed.data["train"]["k_shot"], changed.bn) == (3, 3, "support")
    assert (run.resolve().data["train"]["k_shot"], run.resolve().bn) == (1, "transductive")


def test_a_choice_brings_its_shipped_settings_and_its_name(run: SavedSettings) -> None:
    chosen = run.choose("data", "omniglot").resolve()
    assert (chosen.data["_target_"], chosen.choices["data"]) == (read_shipped("omniglot")["_target_"], "omniglot")
    assert run.resolve().choices == CHOICES
    with pytest.raises(ConfigError, match="there is no data=omniglo; did you mean omniglot"):
        run.choose("data", "omniglo")


def test_a_choice_of_ones_own_is_found_where_the_run_had_its_own(run: SavedSettings, tmp_path: Path) -> None:
    (tmp_path / "algo").mkdir()
    (tmp_path / "algo" / "mine.yaml").write_text("_target_: metarun.algos.gradient.maml.MAML\ninner_lr: 0.125\n")
    own = replace(run, own=[str(tmp_path)])
    assert (own.choose("algo", "mine").config.algo.inner_lr, own.choose("algo", "mine").own) == (0.125, own.own)
    with pytest.raises(ConfigError, match="there is no algo=mine"):
        run.choose("algo", "mine")


def test_settled_settings_no_longer_follow_those_that_are_not(run: SavedSettings) -> None:
    """run.steps refers to data.steps, which is 300; and so does data.train.k_shot, in its own group, to data.k_shot."""
    change = {"data.steps": 7, "data.k_shot": 2}
    assert run.change(change).resolve().run["steps"] == 7
    settled = run.settle("data", "paths")
    found = settled.change(change).resolve()
    assert (found.run["steps"], found.data["train"]["k_shot"]) == (300, 2)
    assert settled.key() == run.key() == make_key(run.config)
    assert settled.change(change).key() != run.key()


def test_a_group_is_read_resolved_and_unchecked(run: SavedSettings) -> None:
    wrong = run.change({"data.k_shot": 0})
    assert wrong.node("data")["train"]["k_shot"] == 0
    with pytest.raises(ConfigError, match=r"data\.k_shot=0 must be"):
        wrong.resolve()


@pytest.mark.parametrize(("mode", "swept"), [("RUN", False), ("MULTIRUN", True)])
def test_a_run_is_reopened_with_what_was_chosen_and_typed(
    full: Compose, tmp_path: Path, mode: str, swept: bool
) -> None:
    found = reopen(save(tmp_path, full("backbone=conv4", "logger=none"), mode))
    assert (found.choices, found.overrides, found.swept) == (CHOICES, ["seed=1"], swept)
    assert found.resolve().run["steps"] == 300


def test_settings_as_they_were_saved_are_not_resolved_and_have_nothing_newer(full: Compose, tmp_path: Path) -> None:
    config = full("backbone=conv4", "logger=none", "data.steps=5")
    config.algo._target_ = "metarun.algos.maml.MAML"
    OmegaConf.set_struct(config, False)
    del config.algo["report_steps"], config["precision"]
    folder = save(tmp_path, config)
    found = read_saved_leaves(folder)
    assert found["run.steps"] == "${data.steps}"
    assert found["algo._target_"] == "metarun.algos.gradient.maml.MAML"
    assert not {"algo.report_steps", "precision"} & found.keys()
    assert [read_saved_value(folder, key) for key in ("run.steps", "data.train.k_shot", "run.nothing")] == [5, 1, None]


@pytest.mark.parametrize(
    ("word", "key", "values", "deletes"),
    [
        ("data.k_shot=1", "data.k_shot", [1], False),
        ("data.k_shot=1,5", "data.k_shot", [1, 5], False),
        ("data.k_shot=range(1,4)", "data.k_shot", [1, 2, 3], False),
        ("data.mean=[0.5,0.25]", "data.mean", [[0.5, 0.25]], False),
        ("device='cuda:1'", "device", ["cuda:1"], False),
        ("~device", "device", [None], True),
    ],
)
def test_an_override_is_read_with_its_values(word: str, key: str, values: list[Any], deletes: bool) -> None:
    assert read_override(word) == Override(key, values, deletes)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("device=cpu,cuda", "device=cpu,cuda has several values, and a run goes on with one"),
        ("~device", "~device would make it another run: resume takes device=, threads=, run.processes="),
        ("seed=2", "seed=2 would make it another run"),
        ("device=[", r"device=\[ cannot be read: "),
    ],
)
def test_a_run_is_not_resumed_with_other_settings_than_those_of_the_machine(
    full: Compose, tmp_path: Path, word: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        resume(save(tmp_path, full("backbone=conv4", "logger=none")), [word])
