"""The network of a trained model as files for other programs."""

from __future__ import annotations

import importlib.util
import io
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from metarun.algos.base.metric import MetricLearner
from metarun.app.model import Model
from metarun.core.errors import ConfigError, wrong_input
from metarun.core.whole import whole_file, write_json, written_whole
from metarun.data.given import find_scale
from metarun.ops import norm

TRACED, CHECKED = 3, 7
"""Rows of the batch that a network is traced with, and of the one that its program is compared on."""

ONNX_PACKAGES = ("onnx", "onnxscript")
"""What torch needs to write ONNX."""

WEIGHTS, PROGRAM, ONNX, INPUTS = "backbone.pt", "backbone.pt2", "backbone.onnx", "inputs.json"


def export_backbone(model: Model, folder: Path) -> dict[str, str]:
    """Write the network to `folder`: its weights, programs that take batches of any size, and how inputs are made.

    Returns: by file, what to say of it.
    Raises: ConfigError if the learner has no network, it cannot be traced, or there can be no such folder.
    """
    net = _find_backbone(model.learner)
    x = torch.randn(TRACED, *model.info.input_shape, device=model.run.device)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror}. Add --to FOLDER, with another one") from error
    with written_whole(folder / WEIGHTS) as file:
        torch.save({name: value.cpu() for name, value in net.state_dict().items()}, file)
    said = {WEIGHTS: f"weights, {sum(p.numel() for p in net.parameters()):,} parameters: torch.load(FILE)"}
    program = trace(net, x)
    with written_whole(folder / PROGRAM) as file:
        torch.export.save(program, cast(io.BytesIO, file))
    other = torch.randn(CHECKED, *x.shape[1:], device=x.device)
    said[PROGRAM] = (
        f"torch.export.load(FILE).module()(x); differs from the network by at most {compare(program, net, other):.1g}"
    )
    said[ONNX] = _write_onnx(program, folder / ONNX)
    write_json(folder / INPUTS, _describe_inputs(model))
    said[INPUTS] = "how pixels become x"
    return said


def describe_network(model: Model) -> str:
    """Say what of the network depends on more than one image, or on the task."""
    net = _find_backbone(model.learner)
    said = []
    if not norm.normalises_rows_alone(net):
        said.append(f"bn={model.bn}: an embedding depends on the other images of its batch; bn=running would not")
    if not isinstance(model.learner, MetricLearner):
        said.append(f"{type(model.learner).__name__} may adapt this network to a task: this is it before that")
    return "; ".join(said)


def _find_backbone(learner: nn.Module) -> nn.Module:
    found = [module for name, module in learner.named_modules() if name.rpartition(".")[2] == "backbone"]
    if not found:
        raise ConfigError(f"{type(learner).__name__} has no backbone to export: it has networks of its own")
    net: nn.Module = found[0]
    return net


@torch.no_grad()
def trace(net: nn.Module, x: Tensor) -> ExportedProgram:
    """Trace a network with a batch; the program takes batches of any size. Raises: ConfigError if that fails."""
    try:
        return torch.export.export(net, (x,), dynamic_shapes=({0: Dim("batch")},))
    except Exception as error:  # torch raises many kinds
        first = str(error).strip().splitlines()[:1]
        raise ConfigError(f"torch.export cannot trace {type(net).__name__}: {' '.join(first)}") from error


@torch.no_grad()
def compare(program: ExportedProgram, net: nn.Module, x: Tensor) -> float:
    """Return the greatest difference between a program and its network."""
    return float((program.module()(x) - net(x)).abs().max())


def _write_onnx(program: ExportedProgram, path: Path) -> str:
    lacking = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if lacking:
        return f"not written: it needs pip install {' '.join(lacking)}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(program, dynamo=True, verbose=False, input_names=["x"], output_names=["embedding"])
    assert made is not None
    with whole_file(path) as aside:
        made.save(aside, external_data=False)
    return "for ONNX Runtime: input x, output embedding"


def _describe_inputs(model: Model) -> dict[str, Any]:
    found: dict[str, Any] = {"shape": ["batch", *model.info.input_shape]}
    if len(model.info.input_shape) == 3:
        with wrong_input():
            found["pixels"] = asdict(find_scale(model.settings.data, model.info.input_shape))
        mean, std = model.run.source.look or model.info.normalisation or (None, None)
        found |= {"mean": mean, "std": std, "x": "(pixels / 255 - mean) / std"}
    return found
