"""Checkpoints: whole or not at all, nothing but tensors and plain values in them, and the random states with them."""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch

from metarun.core.run_folder import RunFolder
from metarun.core.whole import written_whole
from metarun.run import checkpoint


class Command:
    """What an attacker puts into a pickle: a function to call, and what with."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def test_a_checkpoint_gives_back_what_was_saved(tmp_path: Path) -> None:
    weights, progress = torch.tensor([1.5, -2.0]), {"step": 7, "best": {"mse": 0.25}, "best_step": None}
    checkpoint.save(tmp_path / "checkpoints" / "last.pt", {"learner": {"theta": weights}, "progress": progress})
    found = checkpoint.load(tmp_path / "checkpoints" / "last.pt")
    assert torch.equal(found["learner"]["theta"], weights)
    assert found["progress"] == progress


def test_a_checkpoint_that_would_run_code_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    made, path = tmp_path / "made by the checkpoint", tmp_path / "last.pt"
    torch.save({"version": checkpoint.CHECKPOINT_VERSION, "learner": Command(os.mkdir, str(made))}, path)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        checkpoint.load(path)
    assert not made.exists()


@pytest.mark.parametrize("version", [0, 2])
def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path, version: int) -> None:
    torch.save({"version": version}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match=rf"last\.pt has checkpoint version {version}; this program reads 1"):
        checkpoint.load(tmp_path / "last.pt")


def test_a_write_that_fails_half_way_leaves_the_checkpoint_before_it_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full after the first bytes."""
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"step": 4})

    def full(state: Any, file: IO[bytes]) -> None:
        file.write(b"half of a checkpoi")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="No space left"):
            checkpoint.save(path, {"step": 8})
    assert checkpoint.load(path)["step"] == 4
    checkpoint.save(path, {"step": 12})  # and what the failure left is not in the way
    assert checkpoint.load(path)["step"] == 12


def test_a_checkpoint_is_on_the_disk_before_it_takes_the_old_ones_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut leaves an empty file under the right name."""
    done: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("on disk"), sync(file)))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append("in place"), replace(old, new)))
    checkpoint.save(tmp_path / "last.pt", {"step": 4})
    assert done == ["on disk", "in place", "on disk"]  # at last the folder, which has the name


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.rand(3).tolist(),
        lambda: [random.random() for _ in range(3)],
        lambda: [random.gauss(0, 1) for _ in range(3)],
        lambda: np.random.random(3).tolist(),
        lambda: np.random.standard_normal(3).tolist(),
    ],
    ids=["torch", "python", "python in pairs", "numpy", "numpy in pairs"],
)
def test_each_global_generator_goes_on_from_a_checkpoint_where_it_was(
    tmp_path: Path, draw: Callable[[], list[float]]
) -> None:
    """Normal numbers are made in pairs, of which one is kept: three of them leave one over."""
    draw()
    checkpoint.save(tmp_path / "last.pt", {})
    expected = draw()
    draw()
    checkpoint.restore_random(checkpoint.load(tmp_path / "last.pt")["random"])
    assert draw() == expected


def test_a_write_that_fails_half_way_leaves_the_results_before_it_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full after the first bytes."""
    RunFolder(tmp_path).write_results({"status": "interrupted", "steps": 4})

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            RunFolder(tmp_path).write_results({"status": "finished", "steps": 8})
    assert RunFolder(tmp_path).read_results().items() >= {"status": "interrupted", "steps": 4}.items()
    RunFolder(tmp_path).write_results({"status": "finished", "steps": 8})
    assert RunFolder(tmp_path).read_results().items() >= {"status": "finished", "steps": 8}.items()
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_two_processes_that_write_one_file_at_once_leave_the_whole_of_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shared.txt"
    with written_whole(path) as first:
        first.write(b"of the first")
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -1)
            with written_whole(path) as second:
                second.write(b"of the other process")
        assert path.read_bytes() == b"of the other process"
    assert path.read_bytes() == b"of the first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_without_results_has_none(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).read_results() == {}
