"""scripts/time_to_accuracy.py: what it makes of the validations that programs told it of."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from time_to_accuracy import JOBS, Point, Program, compared, outcome

SLOW = [Point(40.0, 50, 0.90), Point(80.0, 100, 0.94), Point(120.0, 150, 0.96)]
FAST = [Point(10.0, 50, 0.93), Point(20.0, 100, 0.95)]


def test_a_comparison_tells_chance_from_speed() -> None:
    assert compared(FAST, SLOW, 0.95) == "6.00 times as fast as learn2learn (100 outer steps: 4.00 times)"
    assert compared(SLOW, FAST, 0.95) == "0.17 times as fast as learn2learn (100 outer steps: 0.25 times)"


def test_a_program_that_did_not_come_so_far_gives_a_bound() -> None:
    more = "more than 4.00 times as fast as learn2learn, which was not there yet (100 outer steps: 4.00 times)"
    assert compared(FAST, SLOW[:2], 0.95) == more
    less = "less than 12.00 times as fast as learn2learn: it was not there yet (50 outer steps: 4.00 times)"
    assert compared(FAST[:1], SLOW, 0.95) == less
    assert compared(FAST[:1], SLOW[:1], 0.95).startswith("has nothing to compare: neither reached 95 %")
    assert compared([], SLOW, 0.95) == "has nothing to compare: a program was ended before its first validation"
    assert outcome(SLOW[:2], 0.95) == "not 95 % after 80 s, 100 outer steps"


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("metarun", [{"step": 50, "split": "train", "accuracy": 0.5}, {"step": 50, "split": "val", "accuracy": 0.25}]),
        ("learn2learn", [{"step": 50, "accuracy": 0.25}]),
    ],
)
def test_only_whole_lines_of_validations_are_read_and_each_once(name: str, lines: list[dict[str, Any]]) -> None:
    program = Program(name, "protonet", JOBS["protonet"], 3)
    text = "\n".join(map(json.dumps, lines))
    program.file.parent.mkdir(exist_ok=True)
    program.file.write_text(text)
    assert program.validation() is None  # its line has no end yet
    program.file.write_text(text + "\n")
    assert program.validation() == Point(0.0, 50, 0.25)
    assert program.validation() is None
    program.close()


def test_rounds_of_metarun_differ_in_their_seed() -> None:
    program = Program("metarun", "protonet", JOBS["protonet"], 3)
    assert "seed=3" in program.words
    program.close()
