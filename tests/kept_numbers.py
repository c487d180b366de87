"""What follows from each value of each setting, as it was: tests/data/settings.json has some digits of it.

Whoever changes numbers on purpose writes them anew by `METARUN_TOLD=write pytest -n 0 -m "slow or not slow"
tests/test_settings_matter.py`, and reads what git says of them. They hold where numbers are rounded as they were there;
elsewhere the few of snapshot.json hold, which are known to agree.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import snapshot

FILE = Path(__file__).parent / "data" / "settings.json"
WRITE = os.environ.get("METARUN_TOLD") == "write"
TOLERANCE = 2e-6
"""Relative to the length of all numbers together."""

Marks = dict[str, list[float]]


@functools.cache
def read() -> dict[str, Any]:
    kept = json.loads(FILE.read_text()) if FILE.is_file() else {}
    made_with = snapshot.made_with()
    return kept if kept.get("made_with") == made_with else {"made_with": made_with, "cases": {}} if WRITE else {}


def find_moved(name: str, outcome: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What of an outcome is not as it was: `outcome` has numbers by name for each of its parts."""
    cases = read().get("cases", {})
    marks = {part: mark(numbers) for part, numbers in outcome.items() if numbers}
    if WRITE:
        cases[name] = marks
        lines = ",\n".join(f"{json.dumps(case)}: {json.dumps(cases[case])}" for case in sorted(cases))
        FILE.write_text(f'{{"made_with": {json.dumps(read()["made_with"], indent=1)},\n"cases": {{\n{lines}\n}}}}\n')
    kept = cases.get(name, {})
    return [
        f"{name}: {part} is not as it was: {kept[part]} then, {found} now"
        for part, found in marks.items()
        if part in kept
        and any(abs(a - b) > TOLERANCE * max(kept[part][0], 1) for a, b in zip(found, kept[part], strict=True))
    ]


def mark(numbers: Mapping[str, Any]) -> list[float]:
    """The length of all numbers together, and their sum with weights that depend on their place."""
    values = np.nan_to_num(np.array([v for name in sorted(numbers) for v in _flat(numbers[name])], np.float64))
    weights = np.cos(np.arange(1, len(values) + 1))
    return [float(f"{np.linalg.norm(values):.8g}"), float(f"{values @ weights:.8g}")]


def _flat(value: Any) -> Iterator[float]:
    if isinstance(value, str):
        yield zlib.crc32(value.encode()) / 2**32
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _flat(one)
    elif value is not None:
        yield from torch.as_tensor(value).detach().double().flatten().tolist()


CLOCKED = re.compile(
    r"\b\d+:\d\d(:\d\d)?\b|[\d.e-]+(?= (steps|tasks)/s)|(?<=second['\"][:,] )[\d.e-]+|(?<=seconds['\"][:,] )[\d.e-]+"
)
"""What the clock decides."""

NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d+(?:e-?\d+)?|-?\d(?:\.\d+)?e-\d+")


def hold(name: str, found: Mapping[str, Any], here: Path) -> None:
    """Compare texts with those that tests/data/kept/NAME.txt has; write them where that is asked for."""
    text = "".join(f"=== {part}\n{_tidy(str(said), here)}\n" for part, said in found.items())
    file = FILE.parent / "kept" / f"{name}.txt"
    if WRITE:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    kept = file.read_text()
    if not read():  # the best step may be another one, and so much else that only words are the same
        assert _keep_words(text) == _keep_words(kept)
        return
    assert NUMBER.sub("~", text) == NUMBER.sub("~", kept)
    then, now = ([float(number) for number in NUMBER.findall(side)] for side in (kept, text))
    assert now == pytest.approx(then, rel=1e-4, abs=1e-6)


def _keep_words(text: str) -> list[str]:
    return re.sub(r"\S*\d\S*|the best so far", "", text).split()


def _tidy(text: str, here: Path) -> str:
    text = CLOCKED.sub("CLOCK", re.sub(r" at 0x\w+", "", text.replace(str(here), "~")))
    return "\n".join(line.rstrip() for line in text.splitlines())
