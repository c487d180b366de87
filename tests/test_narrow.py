"""Which columns of a comparison are left out on a narrow screen."""

from __future__ import annotations

import pytest

from metarun.report.narrow import FIRST_TO_GO, choose_columns

HEADS = ["algo", "accuracy %", "over tasks", "seeds", "p", "", "step", "training", "images"]
LINE = ["protonet", "61.62", "± 2.14", "3", "<0.001", "best", "30", "1:40", "16,000"]
WIDTHS = [10, 12, 12, 7, 8, 6, 6, 10, 8]


@pytest.mark.parametrize(
    ("width", "gone"),
    [
        (sum(WIDTHS), []),
        (sum(WIDTHS) - 1, ["images"]),
        (sum(WIDTHS) - 9, ["images", "training"]),
        (sum(WIDTHS) - 8 - 10 - 6 - 1, ["images", "training", "step", "p"]),
        (10, list(FIRST_TO_GO)),
    ],
)
def test_the_least_telling_columns_go_first_and_the_others_stay(width: int, gone: list[str]) -> None:
    kept = [HEADS[place] for place in choose_columns(HEADS, [LINE], width)]
    assert kept == [head for head in HEADS if head not in gone]
