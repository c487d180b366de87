"""How many tasks run at once on a CPU, by their number and size, and that it changes no number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import maml_settings
from omegaconf import DictConfig
from test_contract import ALGOS, FEWER_STEPS, choices, parts_of

from metarun.algos.base.chunks import choose_tasks_at_once
from metarun.algos.gradient.maml import MAML
from metarun.backbones.conv4 import Conv4
from metarun.core.objectives import classification
from metarun.core.tasks import Batch, Examples


def learner(task_chunk: int = 0) -> MAML:
    backbone = Conv4((1, 28, 28), "transductive", hidden=2)
    return MAML(backbone, 5, classification, **maml_settings(0.1, 1, "vectorized", task_chunk))


def tasks(number: int, images: int, channels: int = 1, side: int = 28, device: str = "cpu") -> Batch:
    """Tasks with a support image and otherwise query images."""
    sizes = (1, images - 1)
    x = [torch.empty(number, size, channels, side, side, device=device) for size in sizes]
    y = [torch.zeros(number, size, dtype=torch.int64, device=device) for size in sizes]
    return Batch(Examples(x[0], y[0]), Examples(x[1], y[1]), 5)


@pytest.mark.parametrize(
    ("batch", "at_once", "said"),
    [
        (tasks(32, 10), 32, "all tasks at once"),  # 5-way 1-shot, a query a class
        (tasks(64, 10), 32, "32 tasks at a time"),
        (tasks(2, 10), 2, "all tasks at once"),
        (tasks(4, 100), 4, "all tasks at once"),  # 5-way 5-shot, 15 queries
        (tasks(16, 30), 8, "8 tasks at a time"),  # 13 fit, and two chunks are as many
        (tasks(3, 40), 1, "task by task"),  # 20-way 1-shot, too few
        (tasks(16, 120), 1, "task by task"),
        (tasks(4, 10, 3, 84), 1, "task by task"),
        (tasks(1, 500), 1, "task by task"),
        (tasks(16, 120, device="meta"), 16, "all tasks at once"),  # as on a GPU
    ],
)
def test_tasks_run_together_where_they_gain_from_it(batch: Batch, at_once: int, said: str) -> None:
    assert learner().chunk(batch, batch.n_tasks) == at_once
    assert learner().describe_engine(batch.tasks(0, 1), batch.n_tasks) == f"vectorized, {said}"


def test_who_sets_task_chunk_is_obeyed() -> None:
    assert learner(3).chunk(tasks(1, 500), 16) == 3
    assert learner(3).describe_engine(tasks(1, 500), 16) == "vectorized, 3 tasks at a time"


def test_on_a_gpu_metric_learners_run_their_episodes_together(settings: Callable[..., DictConfig]) -> None:
    made = parts_of(settings("algo=protonet")).learner
    assert made.chunk(tasks(16, 30), 16) == 1
    assert made.chunk(tasks(16, 30, device="meta"), 16) == 16


@pytest.mark.usefixtures("doubles")
def test_as_many_tasks_run_at_once_as_the_memory_has_room_for(
    settings: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A memory that holds three tasks of an outer step, and six of a test."""
    plain, short = (parts_of(settings("algo=maml", "run.compile=false")) for _ in range(2))
    batch, tests = (next(plain.source.episodes(split, 0, 8)) for split in ("train", "val"))
    sizes = []

    def run(use: str, function: Callable[..., Any], chunk: Batch) -> Any:
        sizes.append(chunk.n_tasks)
        if chunk.n_tasks > (3 if use == "outer step" else 6):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return type(short.learner)._call(short.learner, use, function, chunk)

    monkeypatch.setattr("metarun.algos.base.episodic.choose_tasks_at_once", on_a_gpu)
    plain.learner.train().meta_gradient(batch)
    expected = plain.learner.eval().evaluate(tests)
    with monkeypatch.context() as patch:
        patch.setattr(short.learner, "_call", run)
        short.learner.train()
        for _ in range(2):
            short.learner.zero_grad()
            short.learner.meta_gradient(batch)
        found = short.learner.eval().evaluate(tests)
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2, 8, 4, 4]
    for one, other in zip(plain.learner.parameters(), short.learner.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    torch.testing.assert_close(found, expected)


def on_a_gpu(batch: Batch, n_tasks: int, room: int | None, _: int) -> int:
    return choose_tasks_at_once(tasks(1, 10, device="meta"), n_tasks, room)


def test_a_single_task_that_the_memory_cannot_hold_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    made = learner()
    monkeypatch.setattr(made, "_call", run)
    monkeypatch.setattr("metarun.algos.base.episodic.choose_tasks_at_once", on_a_gpu)
    with pytest.raises(torch.OutOfMemoryError):
        made.evaluate(tasks(5, 10))
    assert made.room == {True: 1}


def test_tasks_that_the_memory_cannot_hold_end_the_run_where_their_number_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = []

    def run(use: str, function: Callable[..., Any], chunk: Batch) -> Any:
        assert not sizes, "it is tried again"
        sizes.append(chunk.n_tasks)
        raise torch.OutOfMemoryError("CUDA out of memory")

    made = learner(task_chunk=3)
    monkeypatch.setattr(made, "_call", run)
    with pytest.raises(torch.OutOfMemoryError):
        made.evaluate(tasks(6, 10))
    assert sizes == [3]


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("algo", [a for a in ALGOS if "first_order" in choices("algo")[a] and a != "metagan_maml"])
def test_the_meta_gradient_does_not_depend_on_how_many_tasks_run_together(
    settings: Callable[..., DictConfig], algo: str, first_order: bool
) -> None:
    """One by one plain autograd differentiates the inner loop, together torch.func does.

    MetaGAN draws other noise for its made images then.
    """
    found = []
    for chunk in (1, 3):
        words = [f"algo={algo}", f"algo.first_order={first_order}", f"algo.task_chunk={chunk}"]
        parts = parts_of(settings(*words, *FEWER_STEPS[algo]))
        parts.learner.train().meta_gradient(next(parts.source.episodes("train", 0, 3)))
        found.append({name: value.grad for name, value in parts.learner.named_parameters() if value.grad is not None})
    alone, together = found
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-7, atol=1e-10, msg=name)
