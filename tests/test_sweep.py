"""Multirun as a person uses it: every job a folder, nothing done twice, nothing lost."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from commands import TINY, jobs_of, lines_of, metarun, results_of, start, wait_for_step

from metarun.app.sweeps.table import count_jobs, name_sweep

WAYS = ["seed=0,1", "data.n_way=5,60", "data.train.n_way=${data.n_way}"]


def test_every_job_has_a_folder_and_a_failed_one_does_not_stop_the_others(tmp_path: Path, cache: Path) -> None:
    code, out, _ = metarun("-m", *TINY, *WAYS, cwd=tmp_path, cache=cache)
    states = [results_of(folder)["status"] for folder in jobs_of(tmp_path)]
    assert sorted(states) == ["failed", "failed", "finished", "finished"]
    assert code == 1
    assert out.count("failed: ") == 2
    assert "needs 60 classes" in out
    assert "2 of 4 done" in out


def test_the_same_command_again_runs_only_what_is_missing(tmp_path: Path, cache: Path) -> None:
    command = ["-m", *TINY, "seed=0,1"]
    code, out, _ = metarun(*command, cwd=tmp_path, cache=cache)
    assert code == 0
    assert "over tasks" in out
    assert "metarun compare outputs/sweeps/" in out
    page = next(tmp_path.glob("outputs/sweeps/*/comparison.html"))
    assert f"as a page: {page.relative_to(tmp_path)}" in out
    assert "Comparison of 2 runs" in page.read_text()
    written = [(folder / "results.json").stat().st_mtime_ns for folder in jobs_of(tmp_path)]
    code, out, _ = metarun(*command, cwd=tmp_path, cache=cache)
    assert (code, out.count("skipped: ")) == (0, 2)
    assert [(folder / "results.json").stat().st_mtime_ns for folder in jobs_of(tmp_path)] == written
    assert metarun(*command, "sweep.rerun=all", cwd=tmp_path, cache=cache)[0] == 0
    assert all(
        (folder / "results.json").stat().st_mtime_ns > old
        for folder, old in zip(jobs_of(tmp_path), written, strict=True)
    )
    assert metarun("-m", *TINY, "seed=0,1", "algo.inner_lr=0.1", cwd=tmp_path, cache=cache)[0] == 0
    assert len(jobs_of(tmp_path)) == 4


def test_a_killed_sweep_repeated_loses_no_finished_job_and_resumes_the_other(tmp_path: Path, cache: Path) -> None:
    """kill -9 in the second of two jobs; its numbers are then those of a run that was never killed."""
    long = [*TINY, "run.steps=60", "run.val_every=20"]
    process = start("-m", *long, "seed=0,1", cwd=tmp_path, cache=cache)
    for _ in range(600):
        if len(jobs_of(tmp_path)) == 2:
            break
        time.sleep(0.1)
    first, second = sorted(jobs_of(tmp_path), key=lambda folder: "-s1-" in folder.name)
    wait_for_step(second, 10, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    finished = (first / "results.json").stat().st_mtime_ns
    code, out, error = metarun("-m", *long, "seed=0,1", cwd=tmp_path, cache=cache)
    assert code == 0, out + error
    assert (first / "results.json").stat().st_mtime_ns == finished
    assert metarun(*long, "seed=1", "hydra.run.dir=alone", cwd=tmp_path, cache=cache)[0] == 0
    assert lines_of(second) == lines_of(tmp_path / "alone")
    assert results_of(second)["test"] == results_of(tmp_path / "alone")["test"]


def test_a_signal_ends_the_whole_sweep(tmp_path: Path, cache: Path) -> None:
    process = start("-m", *TINY, "run.steps=5000", "seed=0,1", cwd=tmp_path, cache=cache)
    while not jobs_of(tmp_path):
        assert process.poll() is None
        time.sleep(0.1)
    wait_for_step(jobs_of(tmp_path)[0], 3, process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on with it" in out
    (folder,) = jobs_of(tmp_path)
    stopped = results_of(folder)
    assert stopped["status"] == "interrupted"
    process = start("resume", str(folder), cwd=tmp_path, cache=cache)
    wait_for_step(folder, stopped["steps"] + 3, process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert f"going on from step {stopped['steps']}" in out


def test_a_sweeps_name_is_that_of_its_command() -> None:
    name = name_sweep(["-m", "algo=maml,protonet", "data.k_shot=1,5", "seed=0"])
    assert name.startswith("algo-data.k_shot-")
    assert name == name_sweep(
        ["data.k_shot=1,5", "-m", "seed=0", "algo=maml,protonet", "sweep.rerun=all", "logger=none"]
    )
    assert name != name_sweep(["-m", "algo=maml,protonet", "data.k_shot=1,5", "seed=1"])
    assert len(name_sweep(["-m", *(f"{'x' * 40}{i}=1,2" for i in range(9))])) < 100


@pytest.mark.parametrize(
    ("overrides", "jobs"),
    [
        (["seed=0,1,2", "algo=maml,anil", "bn=support"], 6),
        (["seed=range(5)"], 5),
        (["optim.lr=interval(0,1)"], 1),
        ([], 1),
    ],
)
def test_jobs_are_counted_as_hydra_makes_them(overrides: list[str], jobs: int) -> None:
    assert count_jobs(overrides) == jobs
