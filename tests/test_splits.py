"""Class splits that are drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarun.data.files.split_file import read_split_file
from metarun.data.files.splits import draw_split

NAMES = [f"c{i}" for i in range(10)]


def test_each_split_gets_its_own_fraction_of_the_classes() -> None:
    split = draw_split(NAMES, (0.5, 0.3, 0.2), 0)
    assert {part: len(labels) for part, labels in split.items()} == {"train": 5, "val": 3, "test": 2}
    assert sorted(name for labels in split.values() for name in labels) == NAMES


def test_a_drawn_split_depends_on_the_names_and_the_seed_alone() -> None:
    once = draw_split(NAMES, (0.5, 0.3, 0.2), 0)
    assert draw_split(NAMES[::-1], (0.5, 0.3, 0.2), 0) == once
    assert draw_split(NAMES, (0.5, 0.3, 0.2), 1) != once


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.3, 0.3), (0.8, 0.2, 0.0)])
def test_fractions_that_are_no_shares_of_three_splits_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"data.fractions=\[.*\] must be three numbers above 0 that sum to 1"):
        draw_split(NAMES, fractions, 0)


def test_the_order_of_lines_in_a_file_of_a_split_does_not_matter(tmp_path: Path) -> None:
    lines = [f"{part} {name}" for part, names in (("train", "bac"), ("val", "ed"), ("test", "gf")) for name in names]
    read = []
    for order in (lines, lines[::-1]):
        (tmp_path / "split.txt").write_text("\n".join(order))
        read.append(read_split_file(tmp_path / "split.txt"))
    assert read == 2 * [{"train": ["a", "b", "c"], "val": ["d", "e"], "test": ["f", "g"]}]
