"""Which columns of a comparison a narrow screen shows."""

from __future__ import annotations

from collections.abc import Sequence

FIRST_TO_GO = ("points", "images", "gradient steps", "training", "step", "p", "over tasks")
"""Columns that are left out one by one, the least telling first."""


def choose_columns(heads: Sequence[str], lines: Sequence[Sequence[str]], width: int) -> list[int]:
    """Choose the columns that fit on a screen `width` letters wide, in order; those of FIRST_TO_GO may be missing."""
    needed = [max(len(cell) for cell in column) + 2 for column in zip(heads, *lines, strict=True)]
    kept = list(range(len(heads)))
    for name in FIRST_TO_GO:
        if sum(needed[place] for place in kept) <= width:
            break
        kept = [place for place in kept if heads[place] != name]
    return kept
