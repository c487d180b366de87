"""A source of one's own: its base class, the settings that it need not write, and who knows it by --config-dir."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_folders import lay_out
from omegaconf import OmegaConf

from metarun.core.errors import ConfigError
from metarun.core.tasks import EpisodePlan, EpisodeShape
from metarun.data.files.splits import SPLITS
from metarun.data.image_source import ImageSource
from metarun.settings.build import build_source
from metarun.settings.compose import compose
from metarun.settings.conf import read_shipped
from metarun.settings.names import make_key
from metarun.settings.reopen import SavedSettings
from metarun.settings.resolve import resolve

PLAN = EpisodePlan(EpisodeShape(2, 1, 1), EpisodeShape(3, 1, 1), 0, 0)
CLASSES = {f"k{c}": np.full((4, 6, 6, 3), 10 * c, np.uint8) for c in range(15)}


class Shades(ImageSource):
    """Fifteen shades, which a setting makes brighter."""

    def __init__(self, plan: EpisodePlan, device: torch.device, brighter: int) -> None:
        super().__init__(plan, device, {name: images + brighter for name, images in CLASSES.items()})


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine" / "data").mkdir(parents=True)
    text = f"# Shades\ndefaults: [/tasks@_here_, _self_]\n_target_: {__name__}.Shades\nn_query: 3\nbrighter: 7\n"
    (tmp_path / "mine" / "data" / "shades.yaml").write_text(text)
    return str(tmp_path / "mine")


def build(words: list[str], own: list[str]) -> Any:
    return build_source(resolve(compose(words, own), own=own), torch.device("cpu"))


def test_a_source_of_ones_own_has_the_settings_of_tasks_without_writing_them(mine: str) -> None:
    config = compose(["data=shades", "data.k_shot=1", "run.steps=3"], [mine])
    assert (config.data.n_query, config.data.eval_seed, config.data.wide, config.data.train.n_query) == (3, 0, 5, 5)
    source = build(["data=shades", "data.train.n_query=3"], [mine])
    assert source.pixels.max() == 147
    assert source.info.facts["classes"] == dict.fromkeys(SPLITS, 5)
    with pytest.raises(ConfigError, match="there is no data=shades"):
        compose(["data=shades"])


def test_the_settings_in_its_file_are_the_same_to_a_union_and_to_a_test(mine: str) -> None:
    composed = compose(["data=shades"], [mine]).data
    assert read_shipped("shades", own=[mine]) == composed
    with pytest.raises(ConfigError, match=r"no data=shade.*did you mean shades"):
        read_shipped("shade", own=[mine])
    chosen = SavedSettings(compose(["data=glyphs"]), {"data": "glyphs"}, own=[mine]).choose("data", "shades")
    assert chosen.resolve().data["brighter"] == 7
    assert chosen.resolve().own == [mine]


def test_a_union_takes_sources_of_ones_own_and_settings_for_one(mine: str, tmp_path: Path) -> None:
    photos = lay_out(tmp_path / "photos", {".": range(15)}, images=8)
    words = ["data=union", "data.sources=[shades,folder]", "data.image_size=6", "data.n_query=3", "data.train.n_way=5"]
    words += [f"+data.members.folder.path={photos}", "+data.members.shades.brighter=9", f"paths.cache={tmp_path}"]
    words += ["data.train.n_query=3"]
    union = build(words, [mine])
    assert union.info.facts["images"]["total"] == 15 * (4 + 8)
    assert union.members["shades"].pixels.max() == 149
    with pytest.raises(ConfigError, match="data=folder has no setting pth; did you mean path"):
        build([*words, "+data.members.folder.pth=1"], [mine])
    with pytest.raises(ValueError, match=r"data.members has settings for omniglot, which is not in data.sources"):
        build([*words, "+data.members.omniglot.root=1"], [mine])


def test_the_base_class_refuses_what_are_no_images() -> None:
    for images, said in (
        (np.zeros((4, 6, 6), np.float32), r"the images of class a are float32 \[4, 6, 6\]: they are to be uint8"),
        (np.zeros((4, 7, 6, 3), np.uint8), r"the images have 2 shapes"),
        (np.zeros((4, 6, 7, 3), np.uint8), r"the images have 2 shapes"),
        (np.zeros((4, 6, 6, 4), np.uint8), r"the images have 2 shapes"),
    ):
        with pytest.raises(ValueError, match=said):
            ImageSource(PLAN, torch.device("cpu"), {**CLASSES, "a": images})


def test_a_split_and_a_look_of_ones_own_are_used() -> None:
    split = {"train": ["k0", "k1"], "val": ["k2", "k3", "k4"], "test": ["k5", "k6", "k7"]}
    source = ImageSource(PLAN, torch.device("cpu"), CLASSES, split, mean=(0.5,), std=(0.25,))
    x = source.batch("test", np.arange(20)).query.x
    assert {round((float(v) * 0.25 + 0.5) * 255) for v in x.unique()} == {50, 60, 70}


def test_gray_images_may_have_no_channels_and_the_drawn_split_does_not_depend_on_the_tasks() -> None:
    gray = {name: images[..., 0] for name, images in CLASSES.items()}
    one = ImageSource(PLAN, torch.device("cpu"), gray)
    wide = EpisodePlan(EpisodeShape(5, 1, 1), EpisodeShape(4, 1, 1), 0, 0, ("test",))
    assert one.info.input_shape == (1, 6, 6)
    assert ImageSource(wide, torch.device("cpu"), gray).info.split_sha256 == one.info.split_sha256


@pytest.mark.parametrize(
    ("data", "newer", "typed"),
    [("folder", "labels", "data.labels=table.csv"), ("union", "members", "+data.members.omniglot.split=lake")],
)
def test_a_setting_that_earlier_runs_did_not_have_leaves_their_keys(data: str, newer: str, typed: str) -> None:
    def key(without: str = "", *words: str) -> str:
        config = compose([f"data={data}", *words])
        OmegaConf.set_struct(config, False)
        config.data.pop(without, None)
        return make_key(config)

    assert key() == key(newer)
    assert key() != key("", typed)
