"""What commands answer to words right and wrong, whole: tests/data/told has a file for each kind of command.

Whoever changes a text on purpose writes the files anew by `METARUN_TOLD=write pytest -n 0 tests/test_told_commands.py`,
and reads what git says of them. tests/data/commands.yaml has the words.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import quick_if
from kept_numbers import WRITE, read
from PIL import Image
from run_folders import finished, settings, write_metrics, write_settings
from same_process import Use, using
from test_told import HERE, tidy

TRIED: dict[str, list[str]] = yaml.safe_load((HERE / "commands.yaml").read_text())

MEASURED = {"data", "eval", "resume", "rerun", "predict", "export", "replay"}

QUICK = {"help-wrong", "help-settings", "list", "show", "compare", "data", "resume"}


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Use]:
    """The kept runs in `old`, three of two methods in `many`, runs in all states, some in `outputs`, and files."""
    shutil.copytree(HERE / "runs", tmp_path / "old")
    for algo, score in {"anil": 0.5, "maml": 0.6}.items():
        for seed in range(3):
            own = settings(algo.upper(), 0.4 if algo == "maml" else None, seed=seed)
            scores = [score + 0.01 * seed + 0.05 * task for task in range(4)]
            run = finished(tmp_path / "many" / f"{algo}{seed}", scores, algo, seed, own, own={"mean": 1.0})
            results = json.loads((run / "results.json").read_text())
            results["test"]["own"] = results["test"]["loss"]
            (run / "results.json").write_text(json.dumps(results))
    states = tmp_path / "states"
    error = {"status": "failed", "error": "RuntimeError: numbers blew up", "test": None}
    finished(states / "failed", [0.1, 0.2], **error)
    finished(states / "refused", [0.1, 0.2], **(error | {"error": "algo=nope"}))
    refused = json.loads((states / "refused" / "results.json").read_text())
    (states / "refused" / "results.json").write_text(json.dumps({k: v for k, v in refused.items() if k != "steps"}))
    write_metrics(write_settings(states / "died", settings()), 20)
    write_settings(states / "unstarted", settings())
    (finished(states / "damaged", [0.1, 0.2]) / "results.json").write_text("{")
    lacking = finished(states / "lacking", [0.1, 0.2], parameters=None)
    (lacking / "results.json").write_text((lacking / "results.json").read_text().replace('"engine"', '"motor"'))
    for name in ("run-a", "run-b", "named-s1", "x/2026-c3d4"):
        finished(tmp_path / "outputs" / name, [0.1, 0.2, 0.4], seed=len(name))
    (tmp_path / "p.csv").write_text("x,y\n0,1\n1,2\n")
    (tmp_path / "q.csv").write_text("x\n0.5\n2\n")
    (tmp_path / "r.csv").write_text("x,y\n0.5,1.5\n2,0\n")
    (tmp_path / "a.yaml").write_text("- algo=maml seed=1\n- algo=anil\n")
    (tmp_path / "b.yaml").write_text("- algo=maml\n- 3\n")
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "own.yaml").write_text("# My own\n_target_: metarun.data.sinusoid.Sinusoid\n")
    for number in range(6):
        place = tmp_path / "pics" / f"c{number // 2}" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (28, 28), 40 * number).save(place)
    for number, path in enumerate(sorted(tmp_path.rglob("*"))):
        os.utime(path, (1_700_000_000 + number,) * 2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METARUN_DATA", str(tmp_path / "data"))
    with using(capsys, tmp_path / "cache", 120) as used:
        yield used


@pytest.mark.parametrize("kind", quick_if(QUICK, [*TRIED]))
def test_each_command_answers_as_was_agreed_on(use: Use, tmp_path: Path, kind: str) -> None:
    if kind in MEASURED - {"data"} and not read() and not WRITE:
        pytest.skip("which value is best may be another one where numbers are rounded in another way")
    parts = []
    for line in TRIED[kind]:
        code, out, errors = use(*shlex.split(line))
        parts += [f"$ metarun {line}", *([out] if out else []), *([f"! {errors}"] if errors else []), f"-> {code}", ""]
    found = vary(tidy("\n".join(parts), tmp_path), kind in MEASURED) + "\n"
    file = HERE / "told" / f"commands-{kind}.txt"
    if WRITE:
        file.write_text(found)
    assert found == file.read_text()


def vary(text: str, measured: bool) -> str:
    """The text without what is of this moment or machine, lists that grow with each method, and `measured` numbers."""
    text = re.sub(r"\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d-(\S+)-\w{4}/", r"DAY/TIME-\1-ID/", text)
    text = re.sub(r"(one of|are) \w+(, \w+){12,}", r"\1 ...", re.sub(r"lists all \d+", "lists all N", text))
    text = re.sub(r"\b\d+ d\b", "AGE", text)
    text = re.sub(r"\b[\d.]+ (k|M|G)?B\b", "SIZE", text)
    text = re.sub(r"ready in [\d.]+ s", "ready in CLOCK", text)
    text = re.sub(r"([\w-]+): \S+ then, \S+ now", r"\1: THEN, NOW", text)
    text = re.sub(
        r"data sets are looked for in[^$]*?cache$", _join_lines, text, flags=re.MULTILINE
    )  # wrapped by length
    text = re.sub(r"^code: .*\n", "", text, flags=re.MULTILINE)
    return re.sub(r"(?<![\w.])-?\d+\.\d{2,}(e-?\d+)?", "NUMBER", text) if measured else text


def _join_lines(found: re.Match[str]) -> str:
    return " ".join(found.group().split())
