"""Sweeps whose jobs run in processes of their own: the same numbers, one way to stop, and nothing left running."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from commands import TINY, Process, jobs_of, lines_of, metarun, results_of, start
from conftest import composing
from hydra import compose
from omegaconf import DictConfig

from metarun.app.sweeps import launch, orphans
from metarun.core.machine import count_jobs_at_once, hold_gpu, share_cores
from metarun.run.interrupt import STOP_FILE
from metarun.settings.conf import CONF

ENDLESS = [*TINY, "run.steps=100000", "run.checkpoint_every=100000", "run.val_every=100000"]


def scores(root: Path) -> dict[int, Any]:
    return {results_of(folder)["seed"]: results_of(folder)["test"] for folder in jobs_of(root)}


def processes_in(folder: Path, word: str = "") -> dict[int, str]:
    """Those that work in `folder`, with their command lines."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if os.readlink(entry / "cwd") == str(folder) and word in line:
                found[int(entry.name)] = line
        except OSError:
            continue
    return found


def left_in(folder: Path) -> dict[int, str]:
    """Those that still work in `folder` after ten seconds, in which what only cleans up may end."""
    end = time.monotonic() + 10
    while (found := processes_in(folder)) and time.monotonic() < end:
        time.sleep(0.05)
    return found


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """Not even where a test fails."""
    yield
    for pid in processes_in(tmp_path):
        with suppress(ProcessLookupError):  # it may have ended by itself just now
            os.kill(pid, signal.SIGKILL)


def wait_for(there: Callable[[], Any], process: Process) -> Any:
    """What `there` returns once it is true; jobs side by side on few cores take their time."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        if found := there():
            return found
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    pytest.fail("it never came")


def started(root: Path, count: int, process: Process) -> list[Path]:
    """Folders of the first `count` jobs, all in training."""

    def trained(folder: Path) -> bool:
        path = folder / "metrics.jsonl"
        return path.exists() and len(path.read_text().splitlines()) > 2

    wait_for(lambda: len(jobs_of(root)) >= count and all(map(trained, jobs_of(root)[:count])), process)
    return jobs_of(root)[:count]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "signum"),
    [
        ("joblib", signal.SIGTERM),
        ("submitit_local", signal.SIGINT),
        ("ray", signal.SIGINT),
        ("ray", signal.SIGTERM),
    ],
)
def test_a_signal_to_the_sweep_saves_its_jobs_and_leaves_no_process(
    tmp_path: Path, cache: Path, launcher: str, signum: signal.Signals
) -> None:
    """Three jobs, two of them running; the signal reaches the launching process alone, as that of `kill` does."""
    if launcher == "ray":
        pytest.importorskip("ray")
    command = ["-m", *ENDLESS, "seed=0,1,2", f"hydra/launcher={launcher}", "threads=1"]
    process = start(*command, cwd=tmp_path, cache=cache, LOKY_MAX_CPU_COUNT="2")
    folders = started(tmp_path, 2, process)
    process.send_signal(signum)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 128 + signum, out + error
    assert "the same command goes on with it" in out
    assert "Traceback" not in out + error
    for folder in folders:
        stopped = results_of(folder)
        assert stopped["status"] == "interrupted"
        assert stopped["saved_step"] == stopped["steps"] > 0
    assert not left_in(tmp_path)


@pytest.mark.slow
def test_workers_of_a_sweep_that_was_killed_end_after_their_jobs(tmp_path: Path, cache: Path) -> None:
    """The launching process alone is killed; its jobs go on until they are asked to stop."""
    command = ["-m", *ENDLESS, "seed=0,1", "hydra/launcher=joblib", "threads=1"]
    process = start(*command, cwd=tmp_path, cache=cache, LOKY_MAX_CPU_COUNT="2")
    folders = started(tmp_path, 2, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    time.sleep(3 * orphans.POLL)
    assert len(processes_in(tmp_path, "Loky")) == 2
    (folders[0].parent / STOP_FILE).touch()
    end = time.monotonic() + 60
    while processes_in(tmp_path) and time.monotonic() < end:
        time.sleep(0.1)
    assert not processes_in(tmp_path)
    assert {results_of(folder)["status"] for folder in folders} == {"interrupted"}


@pytest.mark.slow
def test_ctrl_c_reaches_all_processes_of_a_terminal_and_does_the_same(tmp_path: Path, cache: Path) -> None:
    command = ["-m", *ENDLESS, "seed=0,1", "hydra/launcher=joblib", "threads=1"]
    process = start(*command, cwd=tmp_path, cache=cache, LOKY_MAX_CPU_COUNT="2")
    folders = started(tmp_path, 2, process)
    for pid in processes_in(tmp_path):
        os.kill(pid, signal.SIGINT)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 130, out + error
    assert {results_of(folder)["status"] for folder in folders} == {"interrupted"}
    assert not left_in(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_the_numbers_do_not_depend_on_the_launcher_and_a_failed_job_is_told(
    tmp_path: Path, cache: Path, launcher: str
) -> None:
    if launcher == "ray":
        pytest.importorskip("ray")
    command = ["-m", *TINY, "data.n_way=5,60", "data.train.n_way=${data.n_way}", f"hydra/launcher={launcher}"]
    code, out, error = metarun(*command, cwd=tmp_path, cache=cache)
    assert code == 1, out + error
    assert "1 of 2 done" in out
    assert out.count("failed: ") == 1
    assert "needs 60 classes" in out
    (good,) = [folder for folder in jobs_of(tmp_path) if results_of(folder)["status"] == "finished"]
    assert metarun(*TINY, "hydra.run.dir=alone", cwd=tmp_path, cache=cache)[0] == 0
    assert lines_of(good) == lines_of(tmp_path / "alone")
    written = (good / "results.json").stat().st_mtime_ns
    code, out, _ = metarun(*command, cwd=tmp_path, cache=cache)
    assert (code, out.count("skipped: ")) == (1, 1)
    assert (good / "results.json").stat().st_mtime_ns == written
    assert not list(tmp_path.rglob("*%*"))


@pytest.mark.slow
def test_a_preempted_job_of_submitit_saves_starts_again_and_ends_with_the_same_numbers(
    tmp_path: Path, cache: Path
) -> None:
    """With sweep.rerun=all, which must not throw away what the job itself saved."""
    long = [*TINY, "run.steps=120", "run.checkpoint_every=120", "run.val_every=60"]
    command = ["-m", *long, "seed=0", "hydra/launcher=submitit_local", "sweep.rerun=all"]
    process = start(*command, cwd=tmp_path, cache=cache)
    (folder,) = started(tmp_path, 1, process)
    (task,) = processes_in(tmp_path, "submitit.core._submit")
    os.kill(task, signal.SIGUSR2)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, out + error
    assert "finished: " in out
    (log,) = folder.parent.glob(".submitit/*_log.out")
    assert "Requeued job" in log.read_text()
    assert re.search(r"going on from step [1-9]", (folder / "run.log").read_text())
    assert metarun(*long, "hydra.run.dir=alone", cwd=tmp_path, cache=cache)[0] == 0
    assert lines_of(folder) == lines_of(tmp_path / "alone")
    assert results_of(folder)["test"] == results_of(tmp_path / "alone")["test"]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the fake SLURM, which is on PATH."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    from fake_slurm import install

    install(folder)
    return folder


@pytest.mark.slow
def test_slurm_gets_the_script_and_a_preempted_job_resumes(tmp_path: Path, cache: Path, slurm: Path) -> None:
    """SIGTERM, the warning, makes a job save and go on; SIGUSR2 makes it save, leave and be requeued."""
    long = [*TINY, "run.steps=120", "run.checkpoint_every=120", "run.val_every=60"]
    options = [f"hydra.launcher.{option}" for option in ("partition=gpu", "cpus_per_task=1", "timeout_min=90")]
    process = start("-m", *long, "seed=0,1", "hydra/launcher=slurm", *options, cwd=tmp_path, cache=cache)
    first, _ = started(tmp_path, 2, process)
    task = int((slurm / "100_0.pid").read_text())
    os.kill(task, signal.SIGTERM)
    wait_for((first / "checkpoints" / "last.pt").exists, process)
    assert not (first / "results.json").exists()
    os.kill(task, signal.SIGUSR2)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, out + error
    assert (slurm / "100_0.requeued").exists()
    assert not (slurm / "100_1.requeued").exists()
    assert "2 of 2 done" in out
    assert re.search(r"going on from step [1-9]", (first / "run.log").read_text())
    assert metarun(*long, "hydra.run.dir=alone", cwd=tmp_path, cache=cache)[0] == 0
    assert lines_of(first) == lines_of(tmp_path / "alone")
    script = (slurm / "100.sh").read_text()
    given = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script, re.M))
    assert given | {
        "array": "0-1%2", "cpus-per-task": "1", "gpus-per-node": "1", "mem": "16GB", "partition": "gpu", "time": "90",
        "signal": "USR2@120", "requeue": "", "open-mode": "append", "job-name": "metarun", "nodes": "1",
    } == given  # fmt: skip
    assert "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK\nexport OMP_NUM_THREADS=" in script
    assert "account" not in given


@pytest.mark.slow
def test_leaving_a_sweep_leaves_its_jobs_to_the_cluster(tmp_path: Path, cache: Path, slurm: Path) -> None:
    process = start("-m", *ENDLESS, "seed=0", "hydra/launcher=slurm", cwd=tmp_path, cache=cache)
    (folder,) = started(tmp_path, 1, process)
    task = int((slurm / "100.pid").read_text())
    try:
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=120)
        assert process.returncode == 130, out + error
        assert "goes on" in out
        assert "Traceback" not in out + error
        assert not (folder / "results.json").exists()
        os.kill(task, 0)
    finally:
        os.kill(task, signal.SIGKILL)


@pytest.mark.slow
def test_a_job_that_dies_ends_the_sweep_with_one_line(tmp_path: Path, cache: Path) -> None:
    process = start("-m", *ENDLESS, "seed=0,1", "hydra/launcher=joblib", cwd=tmp_path, cache=cache)
    started(tmp_path, 1, process)
    (worker, *_) = processes_in(tmp_path, "loky.backend.popen_loky")
    os.kill(worker, signal.SIGKILL)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "the launcher failed: TerminatedWorkerError" in out
    assert "Traceback" not in out + error
    assert not left_in(tmp_path)


def test_a_launcher_that_is_missing_says_what_to_install(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "mine" / "hydra" / "launcher").mkdir(parents=True)
    text = (CONF / "hydra" / "launcher" / "ray.yaml").read_text().replace("hydra_ray_launcher", "hydra_ray_launcher_x")
    (tmp_path / "mine" / "hydra" / "launcher" / "gone.yaml").write_text(text)
    command = ["--config-dir", "mine", "-m", *TINY, "seed=0,1", "hydra/launcher=gone"]
    code, out, error = metarun(*command, cwd=tmp_path, cache=cache)
    assert (code, out) == (2, "")
    package = "hydra-ray-launcher-x"
    assert error == f"metarun: this launcher needs {package}, which is not installed: pip install {package}\n"
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("jobs", "threads", "cores", "gpus", "at_once", "each"),
    [
        (12, None, 16, 0, 12, 1),
        (2, None, 16, 0, 2, 8),
        (12, 4, 16, 0, 4, 4),
        (12, 32, 16, 0, 1, 32),
        (12, None, 16, 4, 4, 4),
        (2, None, 16, 4, 2, 8),
        (12, None, 16, 1, 1, 16),
        (3, None, 1, 0, 1, 1),
    ],
)
def test_jobs_share_the_cores_and_the_gpus(
    jobs: int, threads: int | None, cores: int, gpus: int, at_once: int, each: int
) -> None:
    assert count_jobs_at_once(jobs, threads, cores, gpus) == at_once
    assert share_cores(jobs, threads, cores, gpus) == each


def test_runs_spread_over_the_gpus_and_take_the_place_that_was_left(tmp_path: Path) -> None:
    """Two GPUs, four runs: 0, 1, 0, 1; after the second ends, the next is on its GPU, and the next but one on 0."""
    seats = [hold_gpu(["a", "b"], tmp_path) for _ in range(6)]
    taken = [s.__enter__() for s in seats[:4]]
    seats[1].__exit__(None, None, None)
    taken += [s.__enter__() for s in seats[4:]]
    assert taken == [0, 1, 0, 1, 1, 0]


def test_the_settings_of_launchers_follow_the_machine_and_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    launch.register(CONF)
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    monkeypatch.setattr("metarun.core.machine.count_cores", lambda: 16)
    monkeypatch.setattr("metarun.core.machine.list_gpus", list)
    monkeypatch.setenv(launch.JOBS, "4")

    def of(name: str, *overrides: str) -> DictConfig:
        with composing():
            return compose("config", [f"hydra/launcher={name}", *overrides], return_hydra_config=True).hydra.launcher

    assert of("joblib").n_jobs == 4
    assert of("joblib", "threads=8").n_jobs == 2
    assert of("ray").ray.remote == {"num_cpus": 4, "num_gpus": 0, "max_retries": 3}
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert of("submitit_local").setup == ["export OMP_NUM_THREADS=4"]
    monkeypatch.setattr("metarun.core.machine.list_gpus", lambda: ["0", "1"])
    assert of("joblib").n_jobs == 2
    assert of("ray").ray.remote.num_gpus == 1
    assert of("submitit_local").gpus_per_node == 2


@pytest.mark.parametrize("script", sorted((CONF.parent / "scripts").glob("sweep_*.sh")), ids=lambda path: path.stem)
def test_an_example_script_gives_a_command_line_that_composes(
    full: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Path
) -> None:
    (tmp_path / "uv").write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    (tmp_path / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    words = subprocess.run([script, "seed=5"], check=True, capture_output=True, text=True).stdout.split()
    launcher = script.stem.removeprefix("sweep_")
    extra = [] if launcher == "joblib" else ["--extra", launcher]
    overrides = words[words.index("-m") + 1 :]
    assert words[: words.index("-m") + 1] == ["run", *extra, "metarun", "-m"]
    assert {f"hydra/launcher={launcher}", "seed=5"} <= set(overrides)
    launch.register(CONF)
    full(*(override.partition(",")[0] for override in overrides if not override.startswith("seed=0")))
