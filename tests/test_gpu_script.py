"""scripts/gpu: images come out of the packed parts as they went in, and runs are waited for, stopped and gathered."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from gpu import collect, packing

COUNTS = {"train/apple": 103, "train/bear": 3, "val/boat": 10}


@pytest.fixture
def images() -> dict[str, np.ndarray]:
    """Images of 4x5 pixels by the path of their file: a full sheet and three, three alone, and a full row."""
    rng = np.random.default_rng(0)
    names = [f"{folder}/{number:03}.png" for folder, count in COUNTS.items() for number in range(count)]
    return {name: rng.integers(0, 256, (4, 5, 3), dtype=np.uint8) for name in names}


@pytest.fixture
def archive(images: dict[str, np.ndarray], tmp_path: Path) -> Path:
    return write_archive(tmp_path / "whole.zip", images)


def write_archive(path: Path, images: dict[str, np.ndarray]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, image in images.items():
            archive.writestr(name, as_png(image))
    return path


def as_png(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "png")
    return content.getvalue()


def test_images_come_out_of_the_parts_as_they_went_in(
    archive: Path, images: dict[str, np.ndarray], tmp_path: Path
) -> None:
    parts = [tmp_path / "1.zip", tmp_path / "2.zip"]
    packing.pack([archive], parts)
    assert packing.unpack(parts, tmp_path / "out") == 116
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "train-apple.zip",
        "train-bear.zip",
        "val-boat.zip",
    ]
    found = {}
    for path in (tmp_path / "out").glob("*.zip"):
        with zipfile.ZipFile(path) as opened:
            found |= {name: np.asarray(Image.open(opened.open(name))) for name in opened.namelist()}
    assert found.keys() == images.keys()
    for name, image in images.items():
        np.testing.assert_array_equal(found[name], image, err_msg=name)


def test_a_part_that_is_missing_is_told(archive: Path, tmp_path: Path) -> None:
    parts = [tmp_path / "1.zip", tmp_path / "2.zip"]
    packing.pack([archive], parts)
    with pytest.raises(ValueError, match="1 parts hold 1 of 3 classes"):
        packing.unpack(parts[1:], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pixels_that_changed_on_the_way_are_told(images: dict[str, np.ndarray]) -> None:
    packed = packing.pack_class(("bear", {name: as_png(image) for name, image in images.items() if "bear" in name}))
    other = np.array(Image.open(io.BytesIO(packed.sheets[0])))
    other[0, 0, 0] ^= 1
    content = io.BytesIO()
    Image.fromarray(other).save(content, "webp", lossless=True)
    with pytest.raises(ValueError, match="the pixels of bear are not those that were packed"):
        packing.unpack_class(packed._replace(sheets=[content.getvalue()]))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (np.zeros((5, 5, 3), np.uint8), "the images of bear differ in size"),
        (np.zeros((4, 5), np.uint8), "bear/2.png is L; only RGB"),
    ],
)
def test_images_that_cannot_be_packed_are_refused(second: np.ndarray, message: str) -> None:
    first = np.zeros((4, 5, 3), np.uint8)
    with pytest.raises(ValueError, match=message):
        packing.pack_class(("bear", {"1.png": as_png(first), "2.png": as_png(second)}))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A run that has finished, one that was interrupted, and one that died before its first line."""
    folder = tmp_path / "runs"
    for name in ("done", "late", "dead"):
        (folder / name / "checkpoints").mkdir(parents=True)
        (folder / name / "checkpoints" / "best.pt").write_bytes(b"small")
        (folder / name / "checkpoints" / "last.pt").write_bytes(b"0" * (collect.LARGEST + 1))
        (folder / f"{name}.pid").write_text("999999999")
        (folder / f"{name}.log").write_text(f"{name} says")
    lines = [
        {"step": 20, "split": "train", "seconds": 3.0, "tasks_per_second": 213.0},
        {"step": 25, "split": "val", "accuracy": 0.5},
    ]
    for name in ("done", "late"):
        (folder / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    test = {"accuracy": {"mean": 0.75, "ci95": 0.0125}}
    (folder / "done" / "results.json").write_text(json.dumps({"status": "finished", "test": test}))
    (folder / "late" / "results.json").write_text(json.dumps({"status": "interrupted", "test": None}))
    return folder


def test_what_runs_have_found_is_gathered_with_small_checkpoints_of_those_that_may_go_on(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collect.main([str(runs), "--seconds", "0", "--out", str(tmp_path)]) == 1, "one of them is dead"
    table = (tmp_path / "results.txt").read_text()
    assert capsys.readouterr().out == table
    assert [line.split() for line in table.splitlines()[1:]] == [
        ["dead", "failed", "0"],
        ["done", "finished", "25", "3", "213", "75.00", "±", "1.25", "%", "50.00", "%"],
        ["late", "interrupted", "25", "3", "213", "50.00", "%"],
    ]
    with tarfile.open(tmp_path / "runs.tar.gz") as archive:
        names = archive.getnames()
    assert {"runs/done/results.json", "runs/late/metrics.jsonl", "runs/dead.log"} <= set(names)
    checkpoints = {name for name in names if name.endswith(".pt")}
    assert checkpoints == {"runs/late/checkpoints/best.pt", "runs/dead/checkpoints/best.pt"}  # which may go on


def test_late_runs_are_asked_to_stop_and_then_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "NOTICE", 0.5)
    says = "import signal, sys, time; signal.signal(15, {}); print('ready', flush=True); time.sleep(60)"
    answers = {"polite": "lambda *_: sys.exit(7)", "deaf": "signal.SIG_IGN"}
    started = {}
    for name, answer in answers.items():
        command = [sys.executable, "-c", says.format(answer)]
        started[name] = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        assert started[name].stdout.read(6) == b"ready\n"
        (tmp_path / f"{name}.pid").write_text(str(started[name].pid))
    collect.wait_and_stop(tmp_path, time.monotonic() + 1)
    assert {name: process.wait(5) for name, process in started.items()} == {"polite": 7, "deaf": -9}
