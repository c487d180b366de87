"""What a table of runs does not show, and its caption must say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from run_folders import finished, settings

from metarun.report.compare import compare
from metarun.report.runs import find_runs

SCORES = np.random.default_rng(0).uniform(0.3, 0.7, 20)


def notes_of(folder: Path, **asked: Any) -> tuple[str, ...]:
    (found,) = compare(find_runs([folder]), asked.get("by"), ["seed"], None, asked.get("baseline"))[0]
    return found.notes


def run(folder: Path, algo: str, seed: int = 0, config: Any = None, **algo_settings: Any) -> None:
    """A run of `algo` with these settings of it."""
    config = config or settings(algo.upper(), None, seed=seed)
    finished(folder, SCORES + len(algo) / 100, algo, seed, config | {"algo": config["algo"] | algo_settings})


def test_a_setting_of_two_methods_is_named_though_a_third_does_not_have_it(tmp_path: Path) -> None:
    """ANIL comes with 5 inner steps and MAML with 1; ProtoNet has none."""
    for seed in (0, 1):
        run(tmp_path / f"a{seed}", "anil", seed, inner_steps=5, test_inner_steps=10)
        run(tmp_path / f"m{seed}", "maml", seed, inner_steps=1, test_inner_steps=3)
    before = notes_of(tmp_path)
    for seed in (0, 1):
        run(tmp_path / f"p{seed}", "protonet", seed, distance="cosine")
    for notes in (before, notes_of(tmp_path)):
        assert "algo.inner_steps differs too: 5 (anil), 1 (maml)" in notes
        assert "algo.test_inner_steps differs too: 10 (anil), 3 (maml)" in notes
    assert not any("algo.distance" in note for note in notes_of(tmp_path))  # that follows from the method


def test_every_confound_is_named_however_many_there_are(tmp_path: Path) -> None:
    names = [f"k{place}" for place in range(20)]
    run(tmp_path / "a", "anil", **dict.fromkeys(names, 1))
    run(tmp_path / "m", "maml", **dict.fromkeys(names, 2))
    notes = notes_of(tmp_path, baseline={"algo": "maml"})
    assert [f"algo.{name} differs too: 1 (anil), 2 (maml)" in notes for name in names] == [True] * 20


def test_a_value_of_many_groups_is_told_as_that_of_the_others(tmp_path: Path) -> None:
    for place, algo in enumerate(("anil", "boil", "cavia", "maml", "reptile")):
        run(tmp_path / algo, algo, config=settings(algo.upper(), None, lr=0.1 if place == 1 else 0.2))
    assert "optim.lr differs too: 0.1 (boil), 0.2 (the 4 others)" in notes_of(tmp_path)


def test_a_setting_that_the_table_shows_is_not_named_again(tmp_path: Path) -> None:
    run(tmp_path / "a", "anil", inner_steps=5)
    run(tmp_path / "m", "maml", inner_steps=1)
    assert not any("inner_steps" in note for note in notes_of(tmp_path, by=["algo", "algo.inner_steps"]))


def test_versions_of_code_and_of_libraries_are_told(tmp_path: Path) -> None:
    for place, (torch, commit) in enumerate((("2.11", "a"), ("2.15", "b"), ("2.15", "b"))):
        versions = {"torch": torch, "python": "3.11"}
        config = settings("MAML", None, seed=place)
        finished(
            tmp_path / str(place),
            SCORES,
            "maml",
            place,
            config,
            versions=versions,
            git={"commit": commit, "dirty": False},
        )
    notes = [note for note in notes_of(tmp_path, by=["algo"]) if note.startswith("the runs are of")]
    assert notes == ["the runs are of 2 versions of the code", "the runs are of torch 2.11 and 2.15"]
