"""Settings that an earlier version of the program saved: classes by their names of today, and what is newer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from metarun.core.errors import ConfigError
from metarun.settings.conf import CONF
from metarun.settings.saved import (
    MOVED,
    drop_newer,
    find_current_target,
    find_first_target,
    list_class_nodes,
    open_settings,
    rename_back,
    rename_moved,
)

Settings = Callable[..., DictConfig]

TARGETS = [
    ("metarun.algos.maml.MAML", "metarun.algos.gradient.maml.MAML"),
    ("metarun.algos.np.NP", "metarun.algos.processes.neural_process.NP"),
    ("metarun.report.sinks.WandbSink", "metarun.run.tracking.wandb_sink.WandbSink"),
    ("metarun.report.sinks.NoSink", "metarun.run.tracking.sink.NoSink"),
    ("metarun.schedules.cosine_restarts", "metarun.ops.schedules.cosine_restarts"),
]
"""Where some classes were first, one of each kind, and where they are now."""

STAY = ["metarun.data.glyphs.Glyphs", "torch.optim.Adam", "mine.maml.MAML", "metarun.algos.maml_like.MAML"]


@pytest.mark.parametrize(("then", "now"), TARGETS)
def test_a_class_that_has_moved_is_found_where_it_is_now_and_known_by_its_first_name(then: str, now: str) -> None:
    assert [find_current_target(name) for name in (then, now)] == [now, now]
    assert [find_first_target(name) for name in (then, now)] == [then, then]
    get_object(now)


@pytest.mark.parametrize("target", STAY)
def test_a_class_that_has_not_moved_keeps_its_name(target: str) -> None:
    assert find_current_target(target) == find_first_target(target) == target


@pytest.mark.parametrize("then", MOVED)
def test_all_that_has_moved_is_where_it_is_said_to_be(then: str) -> None:
    """A class, or a module with all its classes: those that are its own are found by their first names."""
    now = get_object(MOVED[then])
    own = [name for name, value in vars(now).items() if getattr(value, "__module__", "") == now.__name__]
    names = [f"{then}.{name}" for name in own if not name.startswith("_")] if inspect.ismodule(now) else [then]
    assert names
    for name in names:
        assert get_object(find_current_target(name))
        assert find_first_target(find_current_target(name)) == name


def test_no_two_have_moved_to_one_place_and_none_has_moved_twice() -> None:
    assert len(set(MOVED.values())) == len(MOVED)
    assert not set(MOVED.values()) & set(MOVED)


def test_classes_are_renamed_at_every_depth_and_nothing_else_is_changed() -> None:
    """What refers to another setting is not looked into, and what is missing is not asked for."""
    config = OmegaConf.create(
        {
            "algo": {"_target_": "metarun.algos.np.NP", "inner": {"_target_": "metarun.algos.maml.MAML", "lr": 0.1}},
            "plain": {"deep": {"schedule": {"_target_": "metarun.schedules.cosine_restarts", "steps": "${steps}"}}},
            "same": "${algo}",
            "resolved_elsewhere": "${metarun.nobody_knows:}",
            "not_there": "???",
            "name": "metarun.algos.maml.MAML",
            "list": [{"_target_": "metarun.algos.maml.MAML"}],
            "steps": 3,
        }
    )
    before: dict[str, Any] = OmegaConf.to_container(config)
    assert len(list(list_class_nodes(config))) == 3
    rename_moved(config)
    before["algo"]["_target_"] = "metarun.algos.processes.neural_process.NP"
    before["algo"]["inner"]["_target_"] = "metarun.algos.gradient.maml.MAML"
    before["plain"]["deep"]["schedule"]["_target_"] = "metarun.ops.schedules.cosine_restarts"
    assert OmegaConf.to_container(config) == before


CHOICES = {"data": "glyphs", "backbone": "conv4", "algo": "maml", "optim": "adam", "run": "offline", "logger": "none"}


def written(full: Settings, *words: str) -> DictConfig:
    """The settings of CHOICES as they stand in a file."""
    return OmegaConf.create(OmegaConf.to_container(full("backbone=conv4", "logger=none", *words)))


def saved(folder: Path, config: DictConfig, **choices: str) -> Path:
    """A run's folder as Hydra leaves it."""
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(config, folder / ".hydra" / "config.yaml")
    hydra = {"hydra": {"runtime": {"choices": CHOICES | choices}}}
    OmegaConf.save(OmegaConf.create(hydra), folder / ".hydra" / "hydra.yaml")
    return folder


@pytest.mark.parametrize(
    ("group", "key"),
    [
        ("data", "eval_seed"),
        ("data.train", "n_query"),
        ("backbone", "hidden"),
        ("algo", "report_steps"),
        ("optim", "clip_norm"),
        ("optim", "betas"),
        ("run", "processes"),
    ],
)
def test_a_setting_that_is_newer_than_a_run_has_its_default_and_all_others_what_they_had(
    full: Settings, tmp_path: Path, group: str, key: str
) -> None:
    """In every group but the logger's, of which the sink that was chosen knows best."""
    config = written(full, "optim.lr=0.5", "run.meta_batch_size=7", "algo.inner_lr=0.3", "data.alphabets=9")
    before = OmegaConf.to_container(config)
    del OmegaConf.select(config, group)[key]
    found, hydra = open_settings(saved(tmp_path, config))
    assert OmegaConf.to_container(found) == before
    assert hydra["runtime"]["choices"]["algo"] == "maml"


def test_a_root_setting_that_is_newer_than_a_run_has_its_default_and_no_defaults_list_comes_with_it(
    full: Settings, tmp_path: Path
) -> None:
    config = written(full, "bn=support")
    before = OmegaConf.to_container(config)
    for key in ("precision", "sweep"):
        del config[key]
    found, _ = open_settings(saved(tmp_path, config))
    assert OmegaConf.to_container(found) == before
    root = OmegaConf.load(CONF / "config.yaml")
    assert (found.precision, found.sweep.rerun) == (root.precision, root.sweep.rerun)


def test_a_choice_of_ones_own_has_no_defaults_and_references_stay_what_they_are(full: Settings, tmp_path: Path) -> None:
    config = written(full, "data.k_shot=3")
    del config.algo["report_steps"]
    found, _ = open_settings(saved(tmp_path, config, algo="mine"))
    assert "report_steps" not in found.algo
    assert OmegaConf.is_interpolation(found.data.train, "k_shot")
    assert found.data.train.k_shot == 3


def test_the_settings_of_a_run_name_its_classes_as_they_are_called_today(full: Settings, tmp_path: Path) -> None:
    config = written(full)
    config.algo._target_ = "metarun.algos.maml.MAML"
    config.logger._target_ = "metarun.report.sinks.NoSink"
    found, _ = open_settings(saved(tmp_path, config))
    assert found.algo._target_ == "metarun.algos.gradient.maml.MAML"
    assert found.logger._target_ == "metarun.run.tracking.sink.NoSink"


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not the folder of a run: it has no \.hydra/config\.yaml"):
        open_settings(tmp_path)


THEN = [
    "algos.anil.ANIL",
    "algos.anp.ANP",
    "algos.baseline.Baseline",
    "algos.baseline_pp.BaselinePP",
    "algos.boil.BOIL",
    "algos.cavia.CAVIA",
    "algos.cnp.CNP",
    "algos.distill.Distill",
    "algos.finetune.FineTune",
    "algos.fomaml.FOMAML",
    "algos.gp_oracle.GPOracle",
    "algos.imaml.IMAML",
    "algos.maml.MAML",
    "algos.maml_pp.MAMLPlusPlus",
    "algos.matchingnet.MatchingNet",
    "algos.meta_baseline.MetaBaseline",
    "algos.meta_curvature.MetaCurvature",
    "algos.meta_sgd.MetaSGD",
    "algos.metaoptnet.MetaOptNet",
    "algos.minibatch_prox.MinibatchProx",
    "algos.np.NP",
    "algos.proto_maml.ProtoMAML",
    "algos.protonet.ProtoNet",
    "algos.r2d2.R2D2",
    "algos.relationnet.RelationNet",
    "algos.reptile.Reptile",
    "algos.simpleshot.SimpleShot",
    "backbones.conv4.Conv4",
    "backbones.mlp.MLP",
    "backbones.resnet.ResNet",
    "backbones.resnet12.ResNet12",
    "backbones.torchvision.Torchvision",
    "backbones.vit.ViT",
    "backbones.wrn.WideResNet",
    "data.cifar_fs.CifarFS",
    "data.completion.Completion",
    "data.cub.CUB",
    "data.fc100.FC100",
    "data.folder.Folder",
    "data.glyphs.Glyphs",
    "data.gp.GaussianProcess",
    "data.harmonic.Harmonic",
    "data.mini_imagenet.MiniImageNet",
    "data.omniglot.Omniglot",
    "data.sinusoid.Sinusoid",
    "data.tiered_imagenet.TieredImageNet",
    "data.torchvision.Torchvision",
    "data.union.Union",
    "report.sinks.NoSink",
    "report.sinks.TensorBoardSink",
    "report.sinks.WandbSink",
    "run.offline.OfflineRun",
    "schedules.cosine_restarts",
]
"""Every class of the package that a YAML named in November 2026, and so every one that settings of old runs name."""


@pytest.mark.parametrize("name", THEN)
def test_every_class_that_settings_of_old_runs_name_is_there_and_goes_back_to_its_name(name: str) -> None:
    config = OmegaConf.create({"_target_": f"metarun.{name}"})
    rename_moved(config)
    assert callable(get_object(config["_target_"]))
    rename_back(config)
    assert config == {"_target_": f"metarun.{name}"}


@pytest.mark.parametrize(
    ("typed", "left"),
    [
        (["algo=neural_statistician"], {}),
        (
            ["algo=neural_statistician", "algo.rise_steps=3", "algo.decoder_std=0.5"],
            {"rise_steps": 3, "decoder_std": 0.5},
        ),
        (["algo=dann", "data=moons", "algo.rise_steps=0"], {"rise_steps": 0}),  # which older runs had already
        (["algo=mann"], {"temperature": 0.1, "label": "own"}),
        (["algo=mann", "algo.temperature=1.0", "algo.label=late"], {}),
        (["algo=caml"], {"features": "l2n"}),
        (["algo=caml", "algo.features=un"], {}),
        (["algo=protonet", "algo.distance=cosine", "algo.temperature=1.0"], {"temperature": 1}),
        (["algo=simpleshot", "algo.features=un"], {"features": "un"}),
    ],
)
def test_a_newer_setting_is_dropped_where_it_means_what_older_runs_did(
    full: Settings, typed: list[str], left: dict[str, Any]
) -> None:
    config = full(*typed)
    OmegaConf.set_struct(config, False)
    drop_newer(config)
    newer = ("rise_steps", "decoder_std", "temperature", "label", "features")
    assert {name: config.algo[name] for name in newer if name in config.algo} == left


def test_a_class_whose_default_changed_keeps_what_runs_without_the_setting_did() -> None:
    """MANN once had no temperature, which was 1, and labels came late; CAML took embeddings as they are."""
    caml = OmegaConf.create({"algo": {"_target_": "metarun.algos.memory.caml.CAML", "width": 8}})
    rename_moved(caml)
    assert caml.algo.features == "un"
    config = OmegaConf.create({"algo": {"_target_": "metarun.algos.memory.mann.MANN", "rows": 8}})
    rename_moved(config)
    assert config.algo.temperature == 1
    assert config.algo.label == "late"
    config.algo.temperature = 0.3
    rename_moved(config)
    assert config.algo.temperature == 0.3
