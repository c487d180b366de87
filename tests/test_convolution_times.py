"""scripts/convolutions.py: its ways compute the same, and what it prints is what was timed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import convolutions
from convolving import shapes
from convolving.clock import Clock
from convolving.shapes import Shape
from convolving.step import Keeper

from metarun.core import tuning

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def exact_again() -> Iterator[None]:
    yield
    tuning.set_precision("float32")


@pytest.mark.parametrize("shape", [Shape("a", 1, 3, 5, 2, 2, 3), Shape("b", 6, 8, 4, 1, 1, 3)])
def test_each_way_of_a_shape_is_timed_and_agrees(shape: Shape) -> None:
    rows = list(convolutions.measure(shape, "float32", Clock(CPU), search=False))
    assert not [row for row in rows if "error" in row]
    assert all(row["microseconds"] > 0 for row in rows)
    ways = {row["operation"]: [] for row in rows}
    for row in rows:
        ways[row["operation"]].append(row["way"])
    if shape.channels == 1:
        assert ways == {"y": ["grouped", "patches"], "gw": ["grouped", "patches"]}
    else:
        assert ways["gx"] == ["grouped", "folded", "turned", "last"]
        assert ways["y"] == ways["gw"] == ["grouped", "patches", "last"]
    assert [row["way"] for row in rows if row["by_rule"]] == ["grouped"] * len(ways)


def test_a_way_that_fails_or_differs_is_marked_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> torch.Tensor:
        raise RuntimeError("no such kernel\nand more")

    y = torch.ones(2)
    ways = {"y": {"grouped": lambda: y, "fails": fails, "other": lambda: y + 0.5, "patches": lambda: y * 1}}
    monkeypatch.setattr(convolutions, "operations", lambda shape, device: ways)
    shape = Shape("a", 1, 3, 5, 2, 2, 3)
    rows = list(convolutions.measure(shape, "float32", Clock(CPU), search=False))
    assert [row.get("error") for row in rows] == [None, "no such kernel", "differs by 5.0e-01", None]
    told = convolutions.line(shape, rows)
    assert "fails    ! no such kernel" in told
    assert told.endswith(("best grouped", "best patches"))


def test_the_summary_adds_what_the_rule_and_the_best_take_over_shapes_that_went_well() -> None:
    def rows(side: int, *times: tuple[str, float, bool]) -> list[dict]:
        shape = Shape("a", 4, 8, side, 1, 3, 5)._asdict()
        facts = {"precision": "tf32", "operation": "gx"}
        return [{**shape, **facts, "way": way, "microseconds": took, "by_rule": rule} for way, took, rule in times]

    failed = rows(9, ("grouped", 5e6, True), ("folded", 1.0, False))
    failed[1]["error"] = "none"
    one, two = rows(3, ("grouped", 7000, False), ("folded", 2000, True)), rows(4, ("grouped", 40, False))
    two += rows(4, ("folded", 90, True))
    told = convolutions.summary([*one, *two, *failed])
    assert told == ["tf32    gx own filters, 2 shapes: torch's 7.04 ms, the rule's 2.09 ms, the best 2.04 ms"]


def test_shapes_count_their_products() -> None:
    shape = Shape("a", 2, 8, 5, 2, 3, 7)
    assert shape.out == 3
    assert shape.flops == 2 * (3 * 7) * (3 * 3) * 8 * (2 * 3 * 3)
    assert len(list(shapes.shapes(quick=False))) == len(set(shapes.shapes(quick=False)))


def test_a_merged_record_does_less_and_gives_the_same() -> None:
    keeper, x = Keeper(), torch.arange(6.0).reshape(2, 3)
    found = keeper("f", lambda tensors: {"sum": tensors["x"].exp() + tensors["x"].exp()}, {"x": x})
    before = keeper.operations
    keeper.merge()
    assert (before, keeper.operations) == (3, 2)
    assert torch.equal(keeper.again()["sum"], found["sum"])


def test_numbers_are_kept_where_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = Shape("large", 1, 64, 84, 1, 4096, 80)
    monkeypatch.setattr(convolutions, "shapes", lambda quick: [Shape("a", 1, 3, 5, 2, 2, 3), large])
    monkeypatch.setattr(convolutions, "measure_step", lambda name, clock: [{"step": name, "microseconds": 1.0}])
    convolutions.main(["--json", str(tmp_path / "times.json")])
    kept = json.loads((tmp_path / "times.json").read_text())
    assert kept["torch"] == torch.__version__
    assert kept["steps"] == [{"step": "maml-5w1s-t32", "microseconds": 1.0}]
    columns = {name: {row[place] for row in kept["rows"]} for place, name in enumerate(kept["columns"])}
    assert (columns["precision"], columns["net"]) == ({"float32", "tf32"}, {"a"})
    assert capsys.readouterr().out.endswith("1 shapes left out: too large, or too late\n")
