"""Points of a function in a CSV file: a line for each, its inputs before its values; there may be a line of heads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from metarun.data.files.rows import read_rows
from metarun.data.files.text_file import read_text


def read_points(path: Path, columns: Sequence[int]) -> Tensor:
    """Read numbers [R, one of `columns`] in float64.

    Raises: ValueError if the file cannot be read, naming the first line that has other columns, or no number.
    """
    rows: list[list[float]] = []
    cells = read_rows(read_text(path), ",", str(path))
    lines = [(place, line) for place, line in enumerate(cells, 1) if any(map(str.strip, line))]
    for nth, (place, line) in enumerate(lines):
        numbers = [_read_number(cell) for cell in line]
        if nth == 0 and all(math.isnan(number) for number in numbers):
            continue  # the heads
        if len(line) not in columns or (rows and len(line) != len(rows[0])):
            known = " or ".join(map(str, columns if not rows else [len(rows[0])]))
            raise ValueError(f"{path}, line {place}, has {len(line)} columns, not {known}: {','.join(line)}")
        if bad := [cell for cell, number in zip(line, numbers, strict=True) if not math.isfinite(number)]:
            raise ValueError(f"{path}, line {place}: {bad[0]!r} is not a finite number")
        rows.append(numbers)
    if not rows:
        raise ValueError(f"{path} has no points")
    return torch.tensor(rows, dtype=torch.float64)


def _read_number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
