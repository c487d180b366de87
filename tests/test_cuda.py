"""What a GPU must do: the numbers of the CPU, no waiting, graphs that equal plain steps, and a bit-exact resume.

Skipped without one. `METARUN_TEST_DEVICE=cpu` runs them on a CPU, to find slips in the tests themselves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from test_contract import FEWER_STEPS, parts_of
from test_device import ONCE
from test_outer_loop import StopsAfter
from test_recorder import RECORDABLE

from metarun.core import tuning
from metarun.core.tasks import Batch, Examples
from metarun.data.device import to_device
from metarun.ops.cuda_graph import CapturedFunction
from metarun.ops.replay import CALLS_BEFORE_RECORDING, Recorder
from metarun.run import checkpoint
from metarun.run.interrupt import Interrupted, StopRequest
from metarun.run.parts import Parts
from metarun.settings.build import build_parts, build_run
from metarun.settings.resolve import resolve

DEVICE = os.environ.get("METARUN_TEST_DEVICE", "cuda")
ON_GPU = DEVICE == "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(ON_GPU and not torch.cuda.is_available(), reason="needs a CUDA device"),
]

Settings = Callable[..., DictConfig]
State = dict[str, torch.Tensor]

NOISY = {"np", "anp", "snail", "mann", "neural_statistician", "metagan", "metagan_maml"}
"""Methods that draw random numbers on the device, which a GPU draws otherwise."""


@pytest.fixture(autouse=True)
def same_kernels_each_time() -> Iterator[None]:
    """cuDNN picks the fastest kernel otherwise, and some add in any order."""
    before, torch.backends.cudnn.deterministic = torch.backends.cudnn.deterministic, True
    yield
    torch.backends.cudnn.deterministic = before


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    if not ON_GPU:
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def trained(parts: Parts, steps: int) -> tuple[State, State]:
    """The state after so many outer steps of four tasks each, and scores of training and of validation tasks."""
    torch.manual_seed(0)
    learner = parts.learner
    stream, tests = learner.train_stream(parts.source, 0, 4), next(parts.source.episodes("val", 0, 2))
    scores: State = {}
    state = learner.initial_state()
    for step in range(steps):
        state, metrics = learner.train().outer_step(state, next(stream), parts.optims)
        found = learner.eval().evaluate(tests)
        scores |= {f"{name} {step}": value for name, value in {**metrics, **found}.items()}
    return learner.state_dict(), scores


def words(algo: str, data: str, *more: str) -> list[str]:
    return [f"algo={algo}", f"data={data}", "data.n_query=2", *FEWER_STEPS[algo], *more]


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize(("algo", "data"), [(algo, data) for algo, data in ONCE.items() if algo not in NOISY])
def test_a_gpu_trains_and_tests_as_the_cpu_does(settings: Settings, algo: str, data: str) -> None:
    here, there = (
        trained(parts_of(settings(*words(algo, data), "optim=sgd", "run.compile=false", f"device={device}")), 3)
        for device in ("cpu", DEVICE)
    )
    for one, other in zip(here, there, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            torch.testing.assert_close(
                other[name].cpu(), value, rtol=1e-7, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}"
            )


@pytest.mark.parametrize(("algo", "data"), ONCE.items())
def test_nothing_in_an_outer_step_or_a_test_waits_for_the_gpu(settings: Settings, algo: str, data: str) -> None:
    parts = parts_of(settings(*words(algo, data), "run.compile=false", f"device={DEVICE}"))
    learner = parts.learner
    stream, tests = learner.train_stream(parts.source, 0, 4), parts.source.episodes("val", 0, 2)
    for wait in (False, True):  # the first time libraries are loaded
        with waiting_is_an_error() if wait else torch.no_grad():
            with torch.enable_grad():
                learner.train().outer_step(learner.initial_state(), next(stream), parts.optims)
            learner.eval().evaluate(next(tests))


@pytest.mark.parametrize("algo", RECORDABLE)
def test_a_graph_does_what_plain_steps_do_and_waits_for_nothing(settings: Settings, algo: str) -> None:
    """With batch statistics that are kept, and chunks of two tasks: each graph is launched twice a step."""
    common = words(algo, ONCE[algo], "bn=running", "algo.task_chunk=2", f"device={DEVICE}")
    plain, recorded = (parts_of(settings(*common, f"run.compile={on}")) for on in ("false", "true"))
    expected, found = trained(plain, 4), trained(recorded, 4)
    learner = recorded.learner
    captured = [isinstance(replay, CapturedFunction) for replay in learner.recorder.replays.values()]
    assert captured == [ON_GPU] * len(captured)
    assert len(captured) >= 1
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        unlike = {
            name: float((one[name] - value).abs().max())
            for name, value in other.items()
            if not equal(one[name], value, algo)
        }
        assert not unlike, unlike
    stream, tests = learner.train_stream(recorded.source, 4, 4), recorded.source.episodes("val", 2, 2)
    batch = next(tests)
    with waiting_is_an_error():
        learner.train().outer_step(None, next(stream), recorded.optims)
        learner.eval().evaluate(batch)


def equal(one: torch.Tensor, other: torch.Tensor, algo: str) -> bool:
    """To the bit, but for a product that cuBLAS takes another way in a graph."""
    return torch.allclose(one, other, rtol=1e-5) if algo == "meta_curvature" else torch.equal(one, other)


@pytest.mark.parametrize("algo", ["maml", "protonet", "r2d2", "anp", "baseline"])
def test_a_resumed_run_ends_with_the_weights_of_one_that_was_never_stopped(
    settings: Settings, algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the graph is captured in other steps, too."""
    monkeypatch.setitem(CALLS_BEFORE_RECORDING, "graph", 2)
    steps = ["run.steps=8", "run.checkpoint_every=3", "run.val_every=3", "run.log_every=3", f"device={DEVICE}"]
    config = resolve(settings(*words(algo, ONCE[algo], *steps)))

    def run_in(folder: Path, restore: bool = False) -> Any:
        folder.mkdir(exist_ok=True)
        run = build_run(config, build_parts(config, folder))
        if restore:
            run.restore()
        return run

    torch.manual_seed(0)
    run_in(tmp_path / "whole").execute([], StopRequest())
    torch.manual_seed(0)
    stop = StopRequest()
    with pytest.raises(Interrupted):
        run_in(tmp_path / "parted").execute([StopsAfter(3, stop)], stop)
    torch.manual_seed(1)
    run_in(tmp_path / "parted", restore=True).execute([], StopRequest())
    whole, parted = (checkpoint.load(tmp_path / name / "checkpoints" / "last.pt") for name in ("whole", "parted"))
    assert whole["progress"]["step"] == parted["progress"]["step"] == 8
    assert whole["learner"].keys() == parted["learner"].keys()
    for name, value in whole["learner"].items():
        assert torch.equal(parted["learner"][name], value), name
    scores = [dict(np.load(tmp_path / name / "test_tasks.npz")) for name in ("whole", "parted")]
    for name, value in scores[0].items():
        np.testing.assert_array_equal(scores[1][name], value, err_msg=name)


def test_noise_in_a_graph_is_that_of_plain_calls() -> None:
    recorder = Recorder("graph" if ON_GPU else "replay")
    zeros = torch.zeros(3, device=DEVICE)
    torch.manual_seed(0)
    drawn = torch.stack([recorder("f", lambda x: x + torch.rand_like(x) * torch.randn_like(x), zeros) for _ in "1234"])
    assert recorder.believed
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.stack([torch.rand_like(zeros) * torch.randn_like(zeros) for _ in "1234"]))


@pytest.mark.parametrize(("precision", "most", "least"), [("float32", 1e-6, 0), ("tf32", 1e-2, 1e-5)])
def test_products_and_convolutions_have_the_precision_of_the_settings(
    settings: Settings, precision: str, most: float, least: float
) -> None:
    parts_of(settings(f"precision={precision}", f"device={DEVICE}"))
    try:
        draw = torch.Generator().manual_seed(0)
        x, w = torch.rand(16, 64, 28, 28, generator=draw) - 0.5, torch.rand(64, 64, 3, 3, generator=draw) - 0.5
        a, b = torch.rand(2, 512, 512, generator=draw) - 0.5
        for function, inputs in ((torch.conv2d, (x, w)), (torch.matmul, (a, b))):
            exact = function(*(value.double() for value in inputs))
            found = function(*(value.to(DEVICE) for value in inputs)).cpu().double()
            error = float((found - exact).norm() / exact.norm())
            assert error < most, function.__name__
            assert error > least or not ON_GPU, function.__name__
    finally:
        tuning.set_precision("float32")


def test_a_deterministic_run_gives_the_same_weights_again(settings: Settings) -> None:
    """Where cuDNN would otherwise pick kernels that add in any order; with 28x28 images and 64 filters it does."""
    torch.backends.cudnn.deterministic = False
    common = words("maml", "glyphs", "backbone.hidden=64", "run.compile=true", f"device={DEVICE}")
    found = [trained(parts_of(settings(*common, "deterministic=true")), 4)[0] for _ in range(2)]
    parts_of(settings())  # which takes it back
    assert not torch.backends.cudnn.deterministic
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


@pytest.mark.skipif(not ON_GPU, reason="a CPU has all the memory")
@pytest.mark.parametrize("compile", ["false", "true"])
def test_tasks_that_the_memory_cannot_hold_at_once_run_in_parts(settings: Settings, compile: str) -> None:
    common = words("maml", "glyphs", "backbone.hidden=64", f"run.compile={compile}", f"device={DEVICE}")
    plain, short = (parts_of(settings(*common)) for _ in range(2))
    batch = next(plain.source.episodes("train", 0, 64))
    many = Batch(*(Examples(side.x.repeat(8, 1, 1, 1, 1), side.y.repeat(8, 1)) for side in batch[:2]), batch.n_way)
    plain.learner.train().meta_gradient(many)
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated()
    plain.learner.recorder = None
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(0.4 * peak / total)
    try:
        short.learner.train().meta_gradient(many)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert short.learner.room[True] < many.n_tasks
    for one, other in zip(plain.learner.parameters(), short.learner.parameters(), strict=True):
        assert (other.grad - one.grad).norm() <= 1e-3 * one.grad.norm() + 1e-6


def test_copies_to_the_device_are_those_of_the_moment_they_were_asked_for() -> None:
    """The copy is made in the background; the array's memory may be used anew meanwhile."""
    copies = []
    for number in range(200):
        array = np.full(100_000, number)
        copies.append(to_device(array, torch.device(DEVICE)))
        array += 1000
    if ON_GPU:
        assert [int(copy.min()) for copy in copies] == [int(copy.max()) for copy in copies] == list(range(200))
