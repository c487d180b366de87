"""What a GPU asks of an outer step, tried on the device `meta`, whose tensors have shapes and no numbers.

Whatever looks at a number of such a tensor fails, as it would make a GPU's host wait; and so does whatever mixes
devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import noise_tasks
from omegaconf import DictConfig
from test_contract import ALGOS, PAIRS, parts_of
from torch.utils._python_dispatch import TorchDispatchMode

from metarun.core.tasks import EpisodePlan, EpisodeShape
from metarun.data.augment import Look
from metarun.data.files.splits import SPLITS
from metarun.data.images import ImageClasses, ImageTasks

Settings = Callable[..., DictConfig]


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


@pytest.mark.parametrize(("algo", "data"), ONCE.items())
def test_outer_steps_and_tests_wait_for_no_number(settings: Settings, algo: str, data: str) -> None:
    parts = parts_of(settings(f"algo={algo}", f"data={data}", "device=meta"))
    learner = parts.learner.train()
    batch = next(learner.train_stream(parts.source, 0, 3))
    tested = next(parts.source.episodes("val", 0, 3))
    with Waits() as waits:
        metrics = learner.meta_step(batch, parts.optims)
        scores = learner.eval().evaluate(tested)
    assert {value.device.type for value in (*metrics.values(), *scores.values())} == {"meta"}
    assert not waits.seen


def test_turned_and_augmented_images_are_drawn_without_waiting() -> None:
    shape, look = EpisodeShape(5, 1, 2), Look((0.5,), (0.5,), "standard")
    data = ImageClasses(noise_tasks().pixels, np.arange(37) * 20, [f"c{i}" for i in range(36)])
    split = {s: data.names[12 * i : 12 * i + 12] for i, s in enumerate(SPLITS)}
    source = ImageTasks(data, split, EpisodePlan(shape, shape, 0, 0), "class", torch.device("meta"), look)
    batch = source.batch("train", np.arange(3))
    assert {side.x.device.type for side in (batch.support, batch.query)} == {"meta"}


def test_products_are_exact_unless_precision_says_otherwise(settings: Settings) -> None:
    parts_of(settings("precision=bf16"))
    assert torch.backends.fp32_precision == "bf16"
    assert torch.backends.cudnn.conv.fp32_precision != "tf32"  # which torch 2.11 keeps by itself
    parts_of(settings())  # the next run in the process
    assert {torch.backends.fp32_precision, torch.backends.cudnn.conv.fp32_precision} == {"ieee"}
    a, b = torch.rand(2, 256, 256)
    assert torch.allclose(a @ b, (a.double() @ b.double()).float(), rtol=1e-5)
