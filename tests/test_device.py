"""What a GPU asks of an outer step, tried on the device `meta`, whose tensors have shapes and no numbers.

Whatever looks at a number of such a tensor fails, as it would make a GPU's host wait; and so does whatever mixes
devices.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import noise_tasks, one_of_each
from omegaconf import DictConfig
from test_contract import ALGOS, FEWER_STEPS, PAIRS, parts_of
from torch.utils._python_dispatch import TorchDispatchMode

from metarun.app.jobs.reopened import open_trained
from metarun.core import machine
from metarun.core.errors import ConfigError
from metarun.core.tasks import EpisodePlan, EpisodeShape
from metarun.core.tuning import set_precision
from metarun.data.augment import Look
from metarun.data.files.splits import SPLITS
from metarun.data.images import ImageClasses, ImageTasks
from metarun.run import device
from metarun.run.device import name_device
from metarun.settings import build
from metarun.settings.resolve import resolve

Settings = Callable[..., DictConfig]

RUNS = Path(__file__).parent / "data" / "runs"


class Waits(TorchDispatchMode):
    """Notes what a GPU and its host wait for each other at: tensors that go from the CPU to another device, and errors
    of torch.linalg that are looked for, which `meta` itself lets pass."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._linalg_check_errors.default:
            self.seen.append(str(func))
        tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
        moved = isinstance(out, torch.Tensor) and out.device.type != "cpu" and tensors
        if moved and any(t.device.type == "cpu" and t.dim() for t in tensors):
            self.seen.append(str(func))
        return out


ONCE = dict(PAIRS) | dict.fromkeys(ALGOS, "glyphs")  # each method on one source, images where it takes them
del ONCE["bpl"]  # which finds strokes on the CPU
del ONCE["pmf"]  # which draws on the CPU how copies of the support images are changed
del ONCE["finetune_in_turn"], ONCE["progressive"]  # which draw the order of a task's examples on the CPU


@pytest.mark.parametrize(("algo", "data"), one_of_each([*ONCE.items()]))
def test_outer_steps_and_tests_wait_for_no_number(
    settings: Settings, algo: str, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "DEVICES", ("meta",))
    parts = parts_of(settings(f"algo={algo}", f"data={data}", "device=meta", *FEWER_STEPS[algo]))
    learner = parts.learner.train()
    batch = next(learner.train_stream(parts.source, 0, 3))
    tested = next(parts.source.episodes("val", 0, 3))
    with Waits() as waits:
        metrics = learner.meta_step(batch, parts.optims)
        scores = learner.eval().evaluate(tested)
    assert {value.device.type for value in (*metrics.values(), *scores.values())} == {"meta"}
    assert not waits.seen


DRAWN = {
    **dict.fromkeys(("glyphs", "rainbow", "sinusoid", "harmonic", "mixture", "gp"), "maml"),
    **dict.fromkeys(("quadratics", "logistic"), "learned_optimizer"),
    **{
        "completion": "cnp",
        "moons": "dann",
        "turned_moons": "metareg",
        "sets": "neural_statistician",
        "described": "zero_shot",
    },
}
"""Sources that need no files, and a method for each."""


@pytest.mark.parametrize("data", DRAWN)
def test_tasks_are_made_where_the_run_is(settings: Settings, data: str) -> None:
    images = ["data.images=glyphs"] if data in ("completion", "rainbow", "described") else []
    config = resolve(settings(f"algo={DRAWN[data]}", f"data={data}", *images), warn=False)
    batch = next(build.build_source(config, torch.device("meta")).episodes("val", 0, 2))
    assert {tensor.device.type for tensor in (*batch.support, *batch.query, *batch.side.values())} == {"meta"}


def test_turned_and_augmented_images_are_drawn_without_waiting() -> None:
    shape, look = EpisodeShape(5, 1, 2), Look((0.5,), (0.5,), "standard")
    data = ImageClasses(noise_tasks().pixels, np.arange(37) * 20, [f"c{i}" for i in range(36)])
    split = {s: data.names[12 * i : 12 * i + 12] for i, s in enumerate(SPLITS)}
    source = ImageTasks(data, split, EpisodePlan(shape, shape, 0, 0), "class", torch.device("meta"), look)
    batch = source.batch("train", np.arange(3))
    assert {side.x.device.type for side in (batch.support, batch.query)} == {"meta"}


def precisions() -> dict[str, str]:
    """What torch multiplies float32 numbers in, by who does it; `none` is exact."""
    backends: Any = torch.backends
    conv, rnn, matmul = backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul
    cpu = {"cpu matmul": backends.mkldnn.matmul, "cpu conv": backends.mkldnn.conv}
    return {name: of.fp32_precision for name, of in {"conv": conv, "rnn": rnn, "matmul": matmul, **cpu}.items()}


@pytest.mark.parametrize(
    ("precision", "gpu", "cpu"), [("tf32", "tf32", "tf32"), ("bf16", "none", "bf16"), ("float32", "ieee", "ieee")]
)
def test_products_are_exact_unless_precision_says_otherwise(
    settings: Settings, precision: str, gpu: str, cpu: str
) -> None:
    """In a process of several runs; by torch's older switches too, which cannot be read where the newer ones differ."""
    parts_of(settings(f"precision={precision}"))
    assert precisions() == {"conv": gpu, "rnn": gpu, "matmul": gpu, "cpu matmul": cpu, "cpu conv": cpu}
    assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")
    parts_of(settings())  # the next run in the process
    assert set(precisions().values()) == {"ieee"}
    a, b = torch.rand(2, 256, 256)
    assert torch.allclose(a @ b, (a.double() @ b.double()).float(), rtol=1e-5)


@pytest.mark.parametrize("name", ["auto", "cuda:1"])
def test_a_gpu_refuses_a_precision_that_it_would_not_heed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(build, "choose_device", lambda name: torch.device("cuda:1"))
    said = r"precision=bf16 would change nothing on cuda:1, .* set precision=float32 or precision=tf32, or device=cpu"
    with pytest.raises(ConfigError, match=said):
        parts_of(settings("precision=bf16", f"device={name}"))


def test_a_run_is_opened_again_in_its_own_precision(tmp_path: Path) -> None:
    set_precision("tf32")
    with open_trained(Path(shutil.copytree(RUNS / "maml", tmp_path / "maml")), {}, {}):
        assert set(precisions().values()) == {"ieee"}
    set_precision("float32")


@pytest.mark.parametrize("workspace", [None, ":16:8"])
def test_a_gpu_repeats_itself_where_it_is_asked_to_and_in_no_later_run(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, workspace: str | None
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", workspace or "")
    if workspace is None:
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    said = []
    for asked in (True, False):
        parts_of(settings(f"deterministic={asked}"))
        algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
        said.append((torch.backends.cudnn.deterministic, *algorithms))
    assert said == [(True, True, True), (False, False, False)]
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == (workspace or ":4096:8")


@pytest.mark.parametrize(
    ("visible", "count", "names"),
    [("3, 1", 2, ["3", "1"]), ("GPU-4f,GPU-a0", 2, ["GPU-4f", "GPU-a0"]), (None, 2, ["0", "1"]), ("3,9", 1, ["0"])],
)
def test_a_gpu_is_called_what_all_processes_of_the_machine_call_it(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int, names: list[str]
) -> None:
    """Of those that are visible torch may find fewer; then which is which is not known."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert machine.list_gpus() == names


def test_a_device_is_named_by_the_model_of_its_card_or_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    monkeypatch.setattr("platform.processor", lambda: "")
    assert name_device(torch.device("cuda", 1)) == "card 1"
    lines = ["processor\t: 0", "model\t\t: 106", "model name\t: Quick 3000", "model name\t: Slow 1"]
    monkeypatch.setattr(Path, "read_text", lambda path: "\n".join(lines))
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    assert name_device(torch.device("cpu")) == "Quick 3000"
    monkeypatch.setattr(Path, "is_file", lambda path: False)
    assert name_device(torch.device("cpu")) == "cpu"
    monkeypatch.setattr("platform.processor", lambda: "i999")
    assert name_device(torch.device("cpu")) == "i999"
