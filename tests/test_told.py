"""What the commands that tell of runs print and write, whole, as it was agreed on: tests/data/told has a file for each.

Whoever changes a text on purpose writes the files anew by `METARUN_TOLD=write pytest tests/test_told.py`, and reads
what git says of them. Scores come from files, so that they are the same on every machine; widths are of 120 columns.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from run_folders import finished, settings
from same_process import using

HERE = Path(__file__).parent / "data"
PAIRS = ["--pair", "algo=anil", "algo=maml", "--pair", "algo=r2d2", "algo=protonet"]
CASES = {
    "list": ["list", "old"],
    "show-maml": ["show", "old/maml"],
    "show-evaluated": ["show", "old/evaluated"],
    "show-cnp": ["show", "old/cnp"],
    "show-interrupted": ["show", "old/interrupted"],
    "compare-old": ["compare", "old"],
    "compare-many": ["compare", "many", "--csv", "t.csv", "--markdown", "t.md", "--latex", "t.tex", "--html", "t.html"],
    "compare-pairs": [
        "compare", "many", *PAIRS, "--equal-within", "1", "--seeds-for", "0.5",
        "--csv", "t.csv", "--markdown", "t.md", "--latex", "t.tex", "--html", "t.html",
    ],
    "compare-baseline": ["compare", "many", "--baseline", "algo=maml", "--metric", "loss"],
    "compare-where": ["compare", "many", "--where", "seed=0", "--by", "algo,seed"],
    "compare-tests": ["compare", "old/evaluated", "--by", "k_shot,bn"],
    "help": ["--help"],
    "help-maml": ["help", "maml"],
    "help-run": ["help", "run"],
    "help-lr": ["help", "algo.inner_lr"],
}  # fmt: skip

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Say]:
    """What a command ends with, beside the kept runs in `old`, and four methods by four seeds in `many`."""
    shutil.copytree(HERE / "runs", tmp_path / "old")
    chance = np.random.default_rng(3)
    difficulty = chance.normal(0, 0.1, 200)
    for algo, mean in {"anil": 0.5, "maml": 0.505, "protonet": 0.6, "r2d2": 0.7}.items():
        for seed in range(4):
            scores = (mean + difficulty + chance.normal(0, 0.005) + chance.normal(0, 0.05, 200)).round(6)
            own = settings(algo.upper(), 0.4 if algo == "maml" else None, seed=seed)
            finished(tmp_path / "many" / f"{algo}{seed}", scores, algo, seed, own)
    for number, path in enumerate(sorted(tmp_path.rglob("*"))):
        os.utime(path, (time.time() - 3.5 * 24 * 3600 + number,) * 2)
    monkeypatch.chdir(tmp_path)
    with using(capsys, cache, 120) as use:
        yield use


@pytest.mark.parametrize("name", CASES)
def test_what_is_told_is_what_was_agreed_on(say: Say, tmp_path: Path, name: str) -> None:
    code, out, error = say(*CASES[name])
    told = {"exit code": str(code), "output": out, "errors": error}
    told |= {path.name: path.read_text() for path in sorted(tmp_path.glob("t.*"))}
    found = "".join(f"=== {part}\n{tidy(text, tmp_path)}\n" for part, text in told.items())
    file = HERE / "told" / f"{name}.txt"
    if os.environ.get("METARUN_TOLD") == "write":
        file.write_text(found)
    assert found == file.read_text()


def tidy(text: str, here: Path) -> str:
    """The text without what differs from place to place and day to day, and without the data of figures."""
    text = re.sub(r"<(script|style)\b.*?</\1>", r"<\1/>", text, flags=re.S)
    text = re.sub(r"data:image/[^\"')]*", "data:image/...", text)
    text = text.replace(str(here), "~")
    return "\n".join(line.rstrip() for line in text.splitlines())
