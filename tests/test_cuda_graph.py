"""What is captured is fed and read as it should be; that a GPU captures it is for tests/test_cuda.py."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from metarun.ops import replay
from metarun.ops.cuda_graph import CapturedFunction, Launch
from metarun.ops.replay import Recorder


def again(work: Launch) -> Launch:
    """As a graph does: what was captured reads and writes the memory that it had then."""
    work()
    return work


def function(tree: dict[str, Tensor], more: tuple[Tensor, ...]) -> dict[str, Any]:
    total = tree["x"] + more[0]
    return {"total": total, "parts": [total.sum(), more[1].argmax(), total.T.double()], "none": total[:0]}


def inputs(seed: int) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    draw = torch.Generator().manual_seed(seed)
    x, y = torch.rand(2, 2, 3, generator=draw)
    return {"x": x}, (y, torch.randint(0, 9, (4,), generator=draw))


def test_a_captured_function_gives_what_the_function_gives() -> None:
    captured = CapturedFunction(function, inputs(0), again)
    for seed in (1, 2):
        found, expected = captured(*inputs(seed)), function(*inputs(seed))
        assert found.keys() == expected.keys()
        for one, other in zip((*found["parts"], found["total"]), (*expected["parts"], expected["total"]), strict=True):
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            assert torch.equal(one, other)
        assert found["none"].shape == (0, 3)


def test_outputs_of_one_call_outlast_the_next() -> None:
    """The memory that a launch writes its outputs to is the one of the launch before."""

    def capture(work: Launch) -> Launch:
        work()

        def launch() -> None:
            places = captured.flat
            work()
            for dtype, place in places.items():
                place.copy_(captured.flat[dtype])
            captured.flat = places

        return launch

    captured = CapturedFunction(function, inputs(0), capture)
    first = captured(*inputs(1))
    captured(*inputs(2))
    assert torch.equal(first["total"], function(*inputs(1))["total"])


def test_inputs_are_copied_and_not_written_to() -> None:
    def change(x: Tensor) -> Tensor:
        return x.add_(1)

    x = torch.zeros(3)
    assert CapturedFunction(change, (x,), again)(x).tolist() == [1, 1, 1]
    assert x.tolist() == [0, 0, 0]


def capture_with(monkeypatch: pytest.MonkeyPatch, capture: Any) -> None:
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(replay, "capture_on_gpu", lambda pool: capture)


def test_a_recorder_captures_what_it_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = []

    def capture(work: Launch) -> Launch:
        return lambda: (launched.append(True), work())[1]

    capture_with(monkeypatch, capture)
    recorder = Recorder("graph", after=1)
    for step in range(4):
        x = torch.full((3,), float(step))
        assert torch.equal(recorder("f", torch.square, x), x.square())
    assert len(launched) == 2  # the first call was plain, and the third one, which the record is held against


def test_what_is_done_twice_is_captured_once_and_noise_is_drawn_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    functions: list[Any] = []

    def capture(work: Launch) -> Launch:
        functions.append(work)
        return work

    def repeated(tree: dict[str, Tensor], y: Tensor) -> dict[str, Tensor]:
        return {"sum": tree["x"].exp() + (tree["x"].exp() + y), "noise": torch.rand(3) - torch.rand(3)}

    capture_with(monkeypatch, capture)
    graphs = []
    captured = replay.CapturedFunction
    monkeypatch.setattr(
        replay, "CapturedFunction", lambda graph, *rest: (graphs.append(graph), captured(graph, *rest))[1]
    )
    recorder, (x, y) = Recorder("graph"), torch.rand(2, 3)
    for _ in range(3):
        state = torch.get_rng_state()
        found = recorder("f", repeated, {"x": x}, y)
        after = torch.get_rng_state()
        torch.set_rng_state(state)
        expected = repeated({"x": x}, y)
        assert torch.equal(after, torch.get_rng_state())
        assert torch.equal(found["sum"], expected["sum"])
        assert torch.equal(found["noise"], expected["noise"])
    names = [node.target.overloadpacket.__name__ for node in graphs[0].graph.nodes if node.op == "call_function"]
    assert (names.count("exp"), names.count("rand")) == (1, 2)


def test_what_is_written_to_in_place_is_not_merged_with_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    capture_with(monkeypatch, again)
    recorder, x = Recorder("graph"), torch.rand(3)
    for _ in range(3):
        first, second = recorder("f", lambda x: (x.exp().add_(1), x.exp()), x)
        assert torch.equal(first, x.exp() + 1)
        assert torch.equal(second, x.exp())


def test_what_no_graph_can_hold_is_launched_one_by_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(work: Launch) -> Launch:
        raise RuntimeError("operation not permitted when stream is capturing\nand much more")

    capture_with(monkeypatch, refuse)
    recorder = Recorder("graph")
    with caplog.at_level(logging.WARNING):
        found = [recorder("f", torch.square, torch.tensor([float(step)])).item() for step in range(4)]
    assert found == [0, 1, 4, 9]
    lines = [record.message for record in caplog.records]
    assert lines == [
        "no CUDA graph: operation not permitted when stream is capturing; operations are launched one by one"
    ]


def test_a_tensor_from_the_host_is_not_captured(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A graph would copy it from where it lay when it was captured."""
    capture_with(monkeypatch, again)
    rows = torch.tensor([2, 0])
    with caplog.at_level(logging.WARNING):
        found = Recorder("graph")("f", lambda x: x[rows] + 1, torch.empty(3, device="meta"))
    assert found.shape == (2,)
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        "no CUDA graph: a tensor of the cpu takes part in it"
    ]


def test_what_changes_a_little_along_the_way_is_not_replayed() -> None:
    """As a weight that falls to zero over 100,000 steps."""
    recorder, steps = Recorder("replay"), iter(range(100))
    for step in range(5):
        found = recorder("f", lambda x: x * (1 - 1e-5 * next(steps)), torch.ones(()))
        assert step < 2 or found.item() == pytest.approx(1 - 1e-5 * step, abs=1e-7)
    assert not recorder.replays


def test_a_capture_that_has_no_memory_left_is_for_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(work: Launch) -> Launch:
        raise torch.OutOfMemoryError("CUDA out of memory")

    capture_with(monkeypatch, refuse)
    with pytest.raises(torch.OutOfMemoryError):
        Recorder("graph")("f", torch.square, torch.ones(3))


def test_a_record_has_no_operation_whose_result_nobody_reads() -> None:
    def wasteful(x: Tensor) -> Tensor:
        x.exp().log()
        return x + torch.rand(3).mul(0) if x.dim() else x

    recorder = Recorder("replay")
    recorder("f", wasteful, torch.zeros(3))
    (recorded,) = recorder.replays.values()
    names = [node.target.overloadpacket.__name__ for node in recorded.graph.nodes if node.op == "call_function"]
    assert "exp" not in names
    assert "log" not in names
    assert "rand" in names
