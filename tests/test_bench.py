"""scripts/bench.py: its contestants compute the same, and the numbers it prints are those of its rounds."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import bench
from contestants import settings
from contestants.ours import Metarun
from contestants.peer import Learn2learn
from contestants.settings import Setting
from contestants.tables import ratios, summary

from metarun.core import tuning
from metarun.ops import context

DEVICE = os.environ.get("METARUN_TEST_DEVICE", "cuda")
TINY = {"n_way": 2, "tasks": 2}
CASES = [
    Setting("second order", "maml", **TINY, n_query=2),
    Setting("first order, two steps", "fomaml", **TINY, steps=2),
    Setting("anil", "anil", **TINY, steps=2),
    Setting("protonet", "protonet", **TINY, k_shot=2),
    Setting("test", "maml", **TINY, use="test", steps=2),
]


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("setting", CASES, ids=lambda setting: setting.name)
def test_contestants_compute_the_same_loss_accuracy_and_meta_gradient(setting: Setting) -> None:
    ours, theirs = Metarun(setting).check(), Learn2learn(setting).check()
    assert ours.keys() == theirs.keys()
    assert len(ours) == 2 + (setting.use == "train") * len(settings.weights(setting))
    for name, value in ours.items():
        atol = 1e-6 if name == "accuracy" else 1e-9  # learn2learn's examples count in float32
        np.testing.assert_allclose(theirs[name], value, rtol=1e-9, atol=atol, err_msg=name)


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("setting", CASES[:2], ids=lambda setting: setting.name)
def test_convolutions_by_patches_compute_the_same(setting: Setting) -> None:
    grouped = Metarun(setting).check()
    with context.convolving("patches"):
        by_patches = Metarun(setting).check()
    assert any((by_patches[name] != value).any() for name, value in grouped.items())
    for name, value in grouped.items():
        np.testing.assert_allclose(by_patches[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("contestant", [Metarun, Learn2learn])
@pytest.mark.parametrize("setting", CASES, ids=lambda setting: setting.name)
def test_a_gpu_computes_what_the_cpu_computes(setting: Setting, contestant: type) -> None:
    here, there = contestant(setting).check(), contestant(replace(setting, device=DEVICE)).check()
    for name, value in here.items():
        np.testing.assert_allclose(there[name], value, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_without_a_gpu_none_is_measured() -> None:
    with pytest.raises(SystemExit, match="--device cuda: torch sees no GPU here"):
        bench.main(["--quick", "--device", "cuda"])


def test_curves_of_a_gpu_go_to_more_tasks() -> None:
    on_cpu, on_gpu = (settings.curves(device) for device in ("cpu", "cuda"))
    assert max(setting.tasks for setting in on_cpu["tasks"]) == 64
    assert [setting.tasks for setting in on_gpu["tasks"]] == [8, 32, 128, 512, 2048]
    assert {s.device for curve in on_gpu.values() for s in curve} == {"cuda"}


def test_a_step_of_either_learns(doubles: None) -> None:
    for contestant in (Metarun, Learn2learn):
        one = contestant(CASES[0])
        losses = [one.step()["loss"] for _ in range(3)]
        assert losses[-1] < losses[0]


def test_a_precision_says_how_far_it_leads_the_meta_gradient() -> None:
    setting = settings.chosen("protonet-5w1s-q15")[0]
    assert Metarun(setting).error() == 0
    assert 0 <= Metarun(setting, precision="bf16").error() < 1  # 0 on a CPU that has no bf16
    tuning.set_precision("float32")


def test_ratios_are_of_times_of_the_same_round() -> None:
    base = [{"seconds": 4.0}, {"seconds": 40.0}, {"seconds": 6.0}]  # the machine was busy in the second round
    ours = [{"seconds": 2.0}, {"seconds": 10.0}, {"seconds": 2.0}]
    assert ratios(ours, base) == {"min": 2.0, "q1": 2.5, "median": 3.0, "q3": 3.5, "max": 4.0}


def test_the_fraction_of_the_peak_is_operations_by_the_median_step() -> None:
    rounds = [{"seconds": seconds, "cpu": seconds} for seconds in (0.1, 0.2, 0.9)]
    measured = {"flops": 4e9, "contestants": {"metarun": {"rounds": rounds}}}
    assert summary(measured, {"metarun": 80.0})["metarun"]["of_peak"] == 0.25


def test_settings_are_chosen_by_name_or_by_what_they_begin_with() -> None:
    assert [setting.name for setting in settings.chosen("maml-5w1s")] == ["maml-5w1s"]
    assert {setting.use for setting in settings.chosen("test")} == {"test"}
    assert settings.chosen(settings.USUAL)
    with pytest.raises(SystemExit, match="there is no setting nonsense; choices are maml-5w1s,"):
        settings.chosen("nonsense")


def test_help_names_contestants_and_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main(["--help"])
    assert ended.value.code == 0
    assert {"learn2learn-1", "--quick", "x2"} <= set(capsys.readouterr().out.replace(",", " ").split())


def test_disagreement_is_said_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    checks = {
        name: {"scores": {"loss": loss}, "gradient": 1.0, "rounded": None}
        for name, loss in (("metarun", 1.0), ("jax", 1.1))
    }
    measured = {"checks": checks, "flops": None, "summary": {}, "contestants": {}}
    assert not bench.say(CASES[0], measured)
    assert "DISAGREE" in capsys.readouterr().out
