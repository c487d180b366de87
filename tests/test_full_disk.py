"""A run that cannot write: the disk is full, or its folder is gone. It ends in its own words, and can go on."""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import quick_if
from test_identity import WORDS, Say, say  # noqa: F401
from test_outer_loop import StopsAfter, lines, run_in

from metarun.core import whole
from metarun.run.interrupt import Interrupted, StopRequest
from metarun.run.tracking import json_lines
from metarun.run.tracking.json_lines import JsonLines

RUN = [*WORDS, "run.log_every=1", "hydra.run.dir=r"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@contextmanager
def no_room_for(name: str, after: int = 0) -> Iterator[None]:
    """Inside, no file of this name can be written but for the first `after`."""
    left = [after]

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def replaced(aside: Path, path: Path) -> None:
        if Path(path).name == name:
            if not left[0]:
                full()
            left[0] -= 1
        rename(aside, path)

    rename = os.replace
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole.os, "replace", replaced)
        if name == "metrics.jsonl":
            patch.setattr(json_lines, "os", SimpleNamespace(fsync=full, SEEK_END=os.SEEK_END))
        yield


def numbers(folder: Path) -> Any:
    return json.loads((folder / "results.json").read_text())["test"]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What an undisturbed run finds in its test."""
    from metarun.cli import command

    folder = tmp_path_factory.mktemp("undisturbed") / "r"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["metarun"])
        assert command([*RUN[:-1], f"hydra.run.dir={folder}"]) == 0
    return numbers(folder)


FULL = [
    ("metrics.jsonl", 0),
    ("best.pt", 0),
    ("last.pt", 0),
    ("last.pt", 1),
    ("test_tasks.npz", 0),
    ("results.json", 0),
]


@pytest.mark.parametrize(("name", "after"), quick_if((("metrics.jsonl", 0), ("last.pt", 1)), FULL))
def test_a_full_disk_ends_a_run_in_its_own_words_and_it_goes_on_once_there_is_room(
    say: Say,  # noqa: F811
    name: str,
    after: int,
    expected: Any,
) -> None:
    with no_room_for(name, after):
        code, text = say(*RUN)
    assert code == 1, text
    assert "failed: cannot write " in text
    assert f"{name}: No space left on device" in text
    assert "Traceback" not in text
    assert "with: metarun resume r" in text
    assert not list(Path("r").rglob("*.part"))
    code, text = say("resume", "r")
    assert code == 0, text
    assert numbers(Path("r")) == expected


@pytest.mark.parametrize("name", quick_if(("config.yaml",), ("config.yaml", "hydra.yaml", "overrides.yaml")))
def test_a_disk_that_is_full_at_the_start_leaves_no_half_of_a_run(say: Say, name: str) -> None:  # noqa: F811
    with no_room_for(name):
        code, text = say(*RUN)
    assert code == 1
    assert f"{name}: No space left on device" in text
    assert "metarun resume" not in text
    assert "run again with: metarun algo=maml" in text
    assert not [path for path in Path().rglob("*") if path.is_file()]
    assert say(*RUN)[0] == 0


def test_a_picture_without_room_costs_nothing_else(say: Say) -> None:  # noqa: F811
    with no_room_for("curves.png"):
        code, _ = say(*[word for word in RUN if word != "logger=none"], "logger=tensorboard")
    assert code == 0
    assert not Path("r", "curves.png").exists()


@pytest.mark.parametrize("size", quick_if((600, 20_000), (600, 5_000, 20_000, 24_000)))
def test_a_file_that_is_cut_off_by_the_system_is_said_by_its_name(say: Say, size: int) -> None:  # noqa: F811
    """No file may be longer: settings, the best checkpoint of 20 kB, the last one, which torch writes in pieces."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        code, text = say(*RUN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1, text
    assert "failed: cannot write " in text
    assert "File too large" in text
    assert "unexpected pos" not in text
    assert not list(Path().rglob("*.part"))
    assert say("resume", "r")[0] == (0 if Path("r", ".hydra", "config.yaml").exists() else 2)


def test_a_folder_that_is_removed_under_its_run_is_said(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    log = JsonLines.log

    def remove(self: JsonLines, *words: Any) -> None:
        log(self, *words)
        shutil.rmtree("r", ignore_errors=True)

    monkeypatch.setattr(JsonLines, "log", remove)
    code, text = say(*RUN)
    assert code == 1, text
    assert "failed: cannot write r/checkpoints/" in text
    assert "r was removed while the run went on, or moved: then resume it there" in text
    assert "run again with: metarun algo=maml" in text
    assert "metarun resume r" not in text


def test_an_eval_without_room_says_so(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    assert say(*RUN)[0] == 0

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(whole.os, "fsync", full)
    code, text = say("eval", "r")
    assert code == 1
    assert "metarun: cannot write r/evals/" in text
    assert not [path for path in Path("r", "evals").iterdir()]


def cut_off(text: bytes) -> bytes:
    return text[: len(text) // 2]


@pytest.mark.parametrize("spoil", [cut_off, lambda text: b"", lambda text: text[:-1], None])
def test_metrics_that_are_shorter_than_the_checkpoint_says_are_not_padded(
    tmp_path: Path, spoil: Callable[[bytes], bytes] | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut in a line, emptied, without its last byte, removed: what is whole stays, and the run ends as it would."""
    torch.manual_seed(0)
    run_in(tmp_path / "whole", checkpoint_every=2).execute([], StopRequest())
    torch.manual_seed(0)
    stop, folder = StopRequest(), tmp_path / "parted"
    with pytest.raises(Interrupted):
        run_in(folder, checkpoint_every=2).execute([StopsAfter(4, stop)], stop)
    path = folder / "metrics.jsonl"
    before = path.read_bytes()
    path.unlink()
    if spoil:
        path.write_bytes(spoil(before))
    run = run_in(folder, checkpoint_every=2)
    run.restore()
    with caplog.at_level(logging.WARNING):
        run.execute([], StopRequest())
    (told,) = [record.getMessage() for record in caplog.records if "metrics.jsonl" in record.getMessage()]
    assert f"and had {len(before)} at the checkpoint" in told
    assert b"\0" not in path.read_bytes()
    found, all_lines = lines(folder), lines(tmp_path / "whole")
    assert [line for line in all_lines if line in found] == found
    assert [line for line in found if line["step"] > 4] == [line for line in all_lines if line["step"] > 4]
