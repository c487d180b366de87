"""`metarun export`: the network of a trained run, as files for other programs."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import quick_if
from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import Image
from used_runs import Say, first_task, lay_out, queries_of

from metarun import Model
from metarun.app import exported
from metarun.settings.ranges import find_parameters

NETWORKS = [
    "conv4",
    "conv4_strided",
    "conv4_map",
    "conv4_r2d2",
    "conv6",
    "resnet10",
    "resnet12",
    "wrn28_10",
    "vit",
    "mlp",
]
RUNNERS = importlib.util.find_spec("onnxscript") and importlib.util.find_spec("onnxruntime")


@pytest.mark.slow
def test_the_files_compute_the_networks_embeddings_from_pixels(used_runs: Path, use: Say, tmp_path: Path) -> None:
    """From inputs.json alone and a program that knows nothing of metarun, for more images than it was traced with."""
    files = queries_of(lay_out(first_task(used_runs / "running"), tmp_path))
    code, out, error = use("export", used_runs / "running", "--to", tmp_path / "out")
    assert (code, error) == (0, "")
    told = json.loads((tmp_path / "out" / "inputs.json").read_text())
    assert told["shape"] == ["batch", 1, 28, 28]
    pixels = torch.stack([torch.from_numpy(np.asarray(Image.open(file)).copy())[None] for file in files])
    x = (pixels / 255 - torch.tensor(told["mean"])[:, None, None]) / torch.tensor(told["std"])[:, None, None]
    model = Model.load(used_runs / "running")
    program = torch.export.load(tmp_path / "out" / "backbone.pt2").module()
    assert torch.allclose(program(x), model.embed(files), atol=1e-5)
    assert torch.allclose(program(x[:1]), model.embed(files[:1]), atol=1e-5)
    weights = torch.load(tmp_path / "out" / "backbone.pt", weights_only=True)
    own = model.find_backbone().state_dict()
    assert weights.keys() == own.keys()
    assert all(torch.equal(value, own[name]) for name, value in weights.items())
    assert "depends on the other images" not in out


@pytest.mark.slow
def test_what_depends_on_other_images_or_on_the_task_is_said(used_runs: Path, use: Say) -> None:
    code, out, error = use("export", used_runs / "proto")
    assert (code, error) == (0, "")
    assert f"written to {used_runs / 'proto' / 'export'}/"[:90] in out
    assert "bn=support: an embedding depends on the other images of its batch" in " ".join(out.split())
    code, out, error = use("export", used_runs / "maml", "--bn", "transductive")
    assert (code, error) == (0, "")
    assert "MAML may adapt this network to a task: this is it before that" in " ".join(out.split())


def test_what_cannot_be_exported_is_one_message(used_runs: Path, use: Say) -> None:
    assert use("export", used_runs / "cnp")[::2] == (
        2,
        "metarun: CNP has no backbone to export: it has networks of its own\n",
    )
    assert use("export", used_runs / "running", "--bn", "none")[0] == 2
    file = used_runs / "running" / "results.json"
    told = f"metarun: cannot write {file}: File exists. Add --to FOLDER, with another one\n"
    assert use("export", used_runs / "running", "--to", file)[::2] == (2, told)


def test_the_program_is_compared_on_a_batch_of_another_size_than_it_was_traced_with(
    used_runs: Path, use: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compared(program: Any, net: Any, x: torch.Tensor) -> float:
        return len(x) / 1e6

    monkeypatch.setattr(exported, "compare", compared)
    monkeypatch.setattr(exported, "_write_onnx", lambda *_: "left out")
    assert exported.TRACED != exported.CHECKED
    code, out, _ = use("export", used_runs / "running", "--to", tmp_path / "out")
    assert (code, f"differs from the network by at most {exported.CHECKED / 1e6:.1g}" in " ".join(out.split())) == (
        0,
        True,
    )


def test_without_its_packages_onnx_is_left_out_and_they_are_named(
    used_runs: Path,
    use: Say,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exported, "ONNX_PACKAGES", ("onnx", "package_of_no_one"))
    code, out, error = use("export", used_runs / "running", "--to", tmp_path)
    assert (code, error) == (0, "")
    assert "package_of_no_one" in out
    assert not (tmp_path / "backbone.onnx").exists()


@pytest.mark.skipif(not RUNNERS, reason="onnxscript and onnxruntime are not installed")
def test_onnx_computes_the_same(used_runs: Path, use: Say, tmp_path: Path) -> None:
    from onnxruntime import InferenceSession

    assert use("export", used_runs / "running", "--to", tmp_path)[0] == 0
    x = torch.randn(9, 1, 28, 28)
    (found,) = InferenceSession(tmp_path / "backbone.onnx").run(None, {"x": x.numpy()})
    with torch.no_grad():
        assert np.allclose(found, Model.load(used_runs / "running").find_backbone()(x), atol=1e-4)


@pytest.mark.parametrize("bn", ["running", "support"])
@pytest.mark.parametrize("backbone", quick_if(("conv4", "vit"), NETWORKS))
def test_every_network_becomes_a_program_of_any_batch(
    settings: Callable[..., DictConfig], backbone: str, bn: str
) -> None:
    config = settings(f"backbone={backbone}", "algo=protonet")
    facts = {"bn": bn} if "bn" in find_parameters(config.backbone._target_) else {}
    own = {key: value for key, value in config.backbone.items() if key != "weights"}  # of another run
    net = instantiate(own, _convert_="all", input_shape=(3, 32, 32), **facts).eval()
    program = exported.trace(net, torch.randn(exported.TRACED, 3, 32, 32))
    assert exported.compare(program, net, torch.randn(exported.CHECKED, 3, 32, 32)) < 1e-4
