"""Our numbers beside the papers', from outcomes written by hand: what the table and the headers say of them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from reproduction.outcomes import Outcome
from reproduction.tables import HEADER, TABLE, Row, header, markdown, put_between, write_headers, write_table
from reproduction.targets import Paper, Target

from metarun.core.errors import ConfigError

PROTOCOL = {"n_query": 1, "bn": None, "test_tasks": 600}
TARGET = Target("one", "exp", Paper(0.987, 0.004, "test tasks", "Somebody 2017, Table 1"), PROTOCOL)
OTHER = Target("other", "exp", None, PROTOCOL, score="mse@1")


def outcome(seed: int, mean: float, ci95: float = 0.002, **more: Any) -> Outcome:
    found = Outcome(
        words=("+experiment=exp",),
        seed=seed,
        test={
            "accuracy": {"mean": mean, "ci95": ci95, "n_tasks": 1000},
            "mse@1": {"mean": 2 * mean, "ci95": 0.5, "n_tasks": 1000},
        },
        n_query=15,
        bn="transductive",
        changed={},
        steps=60000,
        best_step=54000,
        hours=1.5,
        hardware="Card",
        versions={"torch": "2.11.0"},
        commit=None,
        command=f"metarun +experiment=exp seed={seed}",
    )
    return replace(found, **more)


def kept(*outcomes: Outcome) -> dict[Any, Outcome]:
    return {one.key: one for one in outcomes}


def cells(text: str, line: int = 2) -> list[str]:
    return [cell.strip() for cell in text.splitlines()[line].strip("|").split("|")]


def test_one_seed_has_its_interval_over_tasks_and_none_over_seeds() -> None:
    """98.4 ± 0.2 reaches 98.6, the paper's 98.7 ± 0.4 begins at 98.3."""
    assert cells(markdown([TARGET], kept(outcome(0, 0.984)))) == [
        "`one`", "98.7 ± 0.4 % (Somebody 2017, Table 1)", "98.40 %", "± 0.20", "one seed", "1 of 3", "yes",
        "15 queries (paper: 1); 1000 test tasks (paper: 600); not known of the paper: BatchNorm",
        "60,000", "1.50", "Card, torch 2.11.0", "`metarun +experiment=exp seed=0`",
    ]  # fmt: skip


def test_two_seeds_stand_as_they_are() -> None:
    found = kept(outcome(0, 0.98), outcome(1, 0.96, hours=2.5, hardware="Another"))
    assert cells(markdown([TARGET], found))[2:7] == ["97.00 %", "± 0.20", "98.00, 96.00", "2 of 3", "no, 1.70 below"]
    assert cells(markdown([TARGET], found))[9:11] == ["2.00", "Another, torch 2.11.0; Card, torch 2.11.0"]


def test_three_seeds_have_an_interval() -> None:
    """Means 0.97, 0.98, 0.99: a deviation of 0.01, t = 4.3027 with two degrees of freedom, over the root of 3: 0.02484.
    98.0 ± 2.48 holds all of 98.3 to 99.1. Over tasks: (0.1 + 0.2 + 0.6) / 3 = 0.3."""
    found = kept(outcome(0, 0.97, 0.001), outcome(1, 0.98, 0.002), outcome(2, 0.99, 0.006))
    assert cells(markdown([TARGET], found))[2:7] == ["98.00 %", "± 0.30", "± 2.48", "3 of 3", "yes"]


@pytest.mark.parametrize(
    ("means", "plus_minus", "contained"),
    [
        ([0.981], 0.004, True),  # up to 98.3, from 98.3
        ([0.9809], 0.004, False),
        ([0.993], 0.004, True),  # from 99.1, up to 99.1
        ([0.9931], 0.004, False),
        ([0.985], None, True),  # up to 98.7
        ([0.9849], None, False),
        ([0.95, 0.985], None, True),  # from 94.8 to 98.7
        ([0.95, 0.9849], None, False),
        ([0.975, 0.99], None, True),
        ([0.9869, 0.9870, 0.9871], None, True),
        ([0.97, 0.98, 0.99], None, True),
        ([0.94, 0.95, 0.96], None, False),  # ± 2.48
        ([0.9499, 0.9500, 0.9501], 0.04, True),  # the interval over tasks is the wider one: 95.2, the paper's from 94.7
        ([0.94, 0.94, 0.94], 0.045, True),  # 94.2
        ([0.94, 0.94, 0.94], 0.0449, False),
    ],
)
def test_it_is_contained_where_both_intervals_share_a_number(
    means: list[float], plus_minus: float | None, contained: bool
) -> None:
    target = replace(TARGET, paper=Paper(0.987, plus_minus, None, "a"))
    nudge = 1e-9 if contained else -1e-9  # a sum of such numbers is off by a last bit
    row = Row(target, [outcome(seed, mean, 0.002 + nudge) for seed, mean in enumerate(means)])
    assert row.contained() is contained
    assert replace(row, target=replace(TARGET, paper=None)).contained() is None


def test_what_is_changed_and_what_differs_is_named_and_what_was_not_run_is_listed() -> None:
    protocol = {"n_query": 15, "bn": "running", "test_tasks": None}
    target = replace(TARGET, differences=("one of five",), protocol=protocol)
    left = replace(TARGET, name="left", experiment="b")
    text = markdown([target, left], kept(outcome(0, 0.99, changed={"a": (1, 2)})))
    assert cells(text)[7] == (
        "bn=transductive (paper: running); one of five; a=1 (experiment: 2); not known of the paper: test tasks"
    )
    assert text.splitlines()[-1] == "Not run yet: `left`."
    assert markdown([target], {}) == "Not run yet: `one`."


def test_a_target_without_a_papers_number_and_in_another_score() -> None:
    row = cells(markdown([OTHER], kept(outcome(0, 0.5))))
    assert row[:8] == ["`other`", "none", "1.0000", "± 0.5000", "one seed", "1 of 3", "", ""]
    paper = replace(OTHER, paper=Paper(0.67, None, None, "S"))
    assert cells(markdown([paper], kept(outcome(0, 0.9))))[1] == "0.67 (S)"
    assert cells(markdown([paper], kept(outcome(0, 0.9))))[6] == "no, 1.1300 above"


def test_an_experiments_header_has_its_numbers_and_how_it_was_tested() -> None:
    assert header([TARGET, OTHER], {}) == ["# not yet run to the end"]
    assert header([TARGET], kept(outcome(0, 0.98), outcome(1, 0.96))) == [
        "# 97.00 %, ± 0.20 over 1000 test tasks, 98.00, 96.00 over 2 seeds; paper 98.7 ± 0.4 %, contained: no,",
        "# 1.70 below; 60,000 steps, 1.50 hours a seed on Card, torch 2.11.0. Otherwise than in the paper: 15",
        "# queries (paper: 1); 1000 test tasks (paper: 600); not known of the paper: BatchNorm.",
    ]
    lines = header([TARGET, OTHER], kept(outcome(0, 0.98)))
    assert [line for line in lines if line.startswith("# other: 1.9600, ± 0.5000 over 1000 test tasks; 60,000 steps")]


def test_tables_and_headers_are_rewritten_in_place_and_twice_the_same(tmp_path: Path) -> None:
    readme, experiment = tmp_path / "README.md", tmp_path / "exp.yaml"
    readme.write_text("\n".join(["# Title", "", *TABLE, "", "The end."]))
    experiment.write_text("\n".join(["# First", HEADER[0], "# old", "# older", HEADER[1], "a: 1  # ---", ""]))
    texts = []
    for found in (kept(outcome(0, 0.98)), kept(outcome(0, 0.98)), kept(outcome(0, 0.97)), {}):
        write_table(readme, [TARGET], found)
        write_headers(tmp_path, [TARGET], found)
        texts.append((readme.read_text(), experiment.read_text()))
    assert texts[0] == texts[1] != texts[2] != texts[3]
    for text, own in texts:
        assert text.startswith("# Title\n\n" + TABLE[0])
        assert text.endswith(TABLE[1] + "\n\nThe end.")
        assert own.startswith("# First\n" + HEADER[0] + "\n# ")
        assert own.endswith("\n" + HEADER[1] + "\na: 1  # ---\n")
        assert "old" not in own
    assert "97.00 %" in texts[2][0]
    assert "97.00 %" in texts[2][1]


def test_a_file_without_a_place_for_our_numbers_is_told() -> None:
    for text in ("", f"{HEADER[0]}\n", f"{HEADER[1]}\n{HEADER[0]}\n"):
        with pytest.raises(ConfigError, match="x has no place for our numbers"):
            put_between(text, HEADER, [], "x")
