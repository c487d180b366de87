"""What becomes of a run whose checkpoints were cut, changed or lost."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_outer_loop import StopsAfter, lines, run_in

from metarun.core.errors import ConfigError
from metarun.run import checkpoint
from metarun.run.interrupt import Interrupted, StopRequest


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_by_a_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path) -> None:
    """Of a weight, in the middle of what torch would read without a word."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = next(item for item in archive.infolist() if "/data/" in item.filename)
        start = member.header_offset + content[member.header_offset :].index(archive.read(member))
    content[start + member.file_size - 1] ^= 0x40
    path.write_bytes(bytes(content))


def overwrite(path: Path) -> None:
    path.write_bytes(b"something else")


DAMAGES = [cut, cut_by_a_byte, empty, flip_a_bit, overwrite, Path.unlink]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_is_noticed(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"learner": {"weight": torch.ones(50)}})
    damage(path)
    with pytest.raises(checkpoint.Damaged, match=r"last\.pt is (damaged|missing)"):
        checkpoint.load(path)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_it_costs_the_steps_since_the_checkpoint_before_it(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Stopped after six steps, with a checkpoint every two: it goes on from the fourth, to the same numbers."""
    torch.manual_seed(0)
    whole = run_in(tmp_path / "whole", checkpoint_every=2)
    whole.execute([], StopRequest())
    torch.manual_seed(0)
    stop = StopRequest()
    with pytest.raises(Interrupted):
        run_in(tmp_path / "parted", checkpoint_every=2).execute([StopsAfter(6, stop)], stop)
    damage(tmp_path / "parted" / "checkpoints" / "last.pt")
    run = run_in(tmp_path / "parted", checkpoint_every=2)
    assert run.resumable()
    with caplog.at_level(logging.WARNING):
        run.restore()
    assert run.step == 4
    (told,) = [record.message for record in caplog.records if record.name == "metarun.run.folder"]
    assert "last.pt is" in told
    assert told.endswith("resuming from the checkpoint before it, of step 4")
    run.execute([], StopRequest())
    assert lines(tmp_path / "parted") == lines(tmp_path / "whole")
    assert torch.equal(run.parts.learner.theta, whole.parts.learner.theta)


def test_where_both_are_damaged_nothing_is_resumed_and_it_is_said_what_can_be_done(tmp_path: Path) -> None:
    run_in(tmp_path, checkpoint_every=2).execute([], StopRequest())
    for name in ("last.pt", "previous.pt"):
        cut(tmp_path / "checkpoints" / name)
    with pytest.raises(ValueError, match=r"last\.pt is damaged.*previous\.pt is damaged.*metarun rerun"):
        run_in(tmp_path).restore()


def test_the_previous_checkpoint_is_the_one_before_the_last(tmp_path: Path) -> None:
    run_in(tmp_path, checkpoint_every=3).execute([], StopRequest())
    found = [
        checkpoint.load(tmp_path / "checkpoints" / f"{name}.pt")["progress"]["step"] for name in ("last", "previous")
    ]
    assert found == [7, 6]


def test_a_file_system_without_second_names_keeps_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    run_in(tmp_path, checkpoint_every=3).execute([], StopRequest())
    assert checkpoint.load(tmp_path / "checkpoints" / "previous.pt")["progress"]["step"] == 6


@pytest.mark.parametrize("damage", [flip_a_bit, Path.unlink], ids=lambda damage: damage.__name__)
def test_a_damaged_best_checkpoint_is_not_tested(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    run_in(tmp_path).execute([], StopRequest())
    damage(tmp_path / "checkpoints" / "best.pt")
    run = run_in(tmp_path)
    run.restore()
    with pytest.raises(ConfigError, match=r"best\.pt is .*, and it is what is tested: metarun rerun"):
        run.execute([], StopRequest())
