"""A run where its data is no longer: what it can be tested on, and how it is told where the data is now."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from image_folders import write_noise
from omegaconf import OmegaConf
from run_folders import forget_hash
from test_identity import Say, say  # noqa: F401

from metarun.core.errors import ConfigError
from metarun.settings.compose import compose
from metarun.settings.places import check_places, make_absolute

WORDS = [
    "algo=protonet", "data=folder", "data.image_size=16", "data.n_way=2", "data.n_query=2", "data.train.n_query=2",
    "backbone=conv4", "backbone.hidden=8", "run.steps=2", "run.meta_batch_size=1", "run.val_tasks=4",
    "run.test_tasks=20", "threads=1", "logger=none", "run.compile=false", "data.fractions=[0.5,0.25,0.25]",
    "run.checkpoint_every=1", "bn=support",
]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with images of 8 classes in `birds`."""
    write_noise(tmp_path / "here" / "birds", [f"c{number}" for number in range(8)], 4, 20, 20, 3)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def run(here: Path, say: Say, tmp_path: Path) -> Path:  # noqa: F811
    """A finished run on the images, whose path was typed relative, with a cache of its own."""
    code, text = say(*WORDS, "data.path=birds", "paths.cache=cache", "hydra.run.dir=r")
    assert code == 0, text
    return here / "r"


def found_by(run: Path) -> dict[str, Any]:
    return {
        one["data"]: one["test"] for file in (run / "evals").glob("*.json") if (one := json.loads(file.read_text()))
    }


def test_relative_paths_are_kept_absolute_and_others_as_they_were_typed(run: Path, here: Path) -> None:
    config = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
    assert config["data"]["path"] == str(here / "birds")
    assert config["paths"]["cache"] == str(here / "cache")
    assert (config["data"]["cache"], config["data"]["split"]) == ("${paths.cache}", None)
    assert config["paths"]["outputs"] == "outputs"


def test_the_roots_are_kept_absolute_though_they_are_made_later(here: Path) -> None:
    """What else is typed may be no path: it is one if something lies there."""
    words = ["data=folder", "data.path=later", "paths.cache=later/cache", "paths.data=later/data"]
    config = make_absolute(compose(words))
    assert (config.paths.cache, config.paths.data) == (str(here / "later" / "cache"), str(here / "later" / "data"))
    assert config.data.path == "later"
    (here / "later").mkdir()
    assert make_absolute(compose(words)).data.path == str(here / "later")
    assert make_absolute(compose(["paths.cache='~/kept'"])).paths.cache == "~/kept"


def test_relative_paths_of_a_unions_sources_are_kept_absolute_and_missed_where_they_are_gone(here: Path) -> None:
    words = ["data=union", "data.sources=[folder,cub]", "+data.members.folder.path=birds"]
    config = make_absolute(compose([*words, "+data.members.folder.split=draw", "+data.members.cub.root=${paths.data}"]))
    folder, cub = config.data.members.folder, OmegaConf.to_container(config.data.members.cub)
    assert (folder.path, folder.split, cub) == (str(here / "birds"), "draw", {"root": "${paths.data}"})
    check_places(config)
    shutil.move("birds", "moved")
    with pytest.raises(ConfigError, match=r"data\.members\.folder\.path=.*birds is not there.*folder\.path=PATH"):
        check_places(config)


def test_a_run_is_opened_from_another_folder(
    run: Path,
    say: Say,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = say("eval", run, "bn=support")
    assert code == 0, text
    assert found_by(run) == {"folder": json.loads((run / "results.json").read_text())["test"]}
    code, text = say("rerun", run, f"hydra.run.dir={tmp_path / 'again'}")
    assert code == 0, text
    assert text.count("data.path=") == 3  # in the command, in what was typed, and in the next command
    assert "the default is" not in text
    again = json.loads((tmp_path / "again" / "results.json").read_text())
    assert again["test"] == json.loads((run / "results.json").read_text())["test"]


@pytest.mark.slow
def test_where_the_data_is_gone_others_do_and_where_it_was_moved_that_can_be_said(
    run: Path,
    here: Path,
    say: Say,  # noqa: F811
) -> None:
    then = json.loads((run / "results.json").read_text())["test"]
    shutil.move("birds", "moved")
    shutil.rmtree("cache")
    code, text = say("eval", run, "data=glyphs", "data.alphabets=5", "bn=support")
    assert code == 0, text
    assert "normalised as those of folder" in text
    for word in ("show", "compare"):
        assert say(word, run)[0] == 0
    code, text = say("eval", run)
    assert code == 2
    assert f"data.path={here / 'birds'} is not there. If it was moved, say where it is now: add data.path=PATH" in text
    code, text = say("eval", run, "data.path=moved", "bn=support")
    assert code == 0, text
    assert found_by(run)["folder"] == then
    checkpoints = run / "checkpoints"
    (run / "results.json").unlink()
    shutil.copy(checkpoints / "previous.pt", checkpoints / "last.pt")
    assert say("resume", run)[0] == 2
    code, text = say("resume", run, "data.path=moved", "threads=2")
    assert code == 0, text
    assert "going on from step 1" in text
    assert json.loads((run / "results.json").read_text())["test"] == then


def test_other_classes_in_the_place_of_the_runs_own_are_said(run: Path, say: Say) -> None:  # noqa: F811
    for number in range(8):
        Path("birds", f"c{number}").rename(Path("birds", f"d{number}"))
    for split in Path("birds").glob("*.txt"):
        split.unlink()
    code, text = say("eval", run)
    assert code == 2
    assert "was trained on another split of the data" in text


def test_an_older_checkpoint_needs_the_data_and_takes_where_it_is(run: Path, say: Say) -> None:  # noqa: F811
    then = json.loads((run / "results.json").read_text())["test"]
    forget_hash(run)
    assert "source" not in torch.load(run / "checkpoints" / "best.pt")
    shutil.move("birds", "moved")
    assert say("eval", run)[0] == 2
    code, text = say("eval", run, "data.path=moved", "bn=support")
    assert code == 0, text
    assert found_by(run)["folder"] == then


@pytest.mark.parametrize("word", ["data.n_way=3", "seed=1", "data.fractions=[0.4,0.3,0.3]"])
def test_resume_takes_no_other_settings_of_the_data(run: Path, say: Say, word: str) -> None:  # noqa: F811
    (run / "results.json").unlink()
    code, text = say("resume", run, word)
    assert code == 2
    assert f"{word} would make it another run: resume takes device=, threads=, run.processes=, paths.data=" in text
    assert "data.path=" in text
