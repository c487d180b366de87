"""A job within this process: when it runs again, what a sweep and a search are told of it, and how it ends."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import noise_tasks
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from run_folders import finished, write_metrics, write_settings
from run_folders import settings as plain_settings

from metarun.app.commands.resume import resume
from metarun.app.jobs import composed, describe, job
from metarun.app.jobs.claim import Claim
from metarun.app.jobs.reopened import Trained
from metarun.app.sweeps import search
from metarun.app.sweeps.job_state import read_job
from metarun.app.sweeps.launch import STARTED_FILE
from metarun.app.sweeps.table import SweepTable
from metarun.core.errors import ConfigError, Refused
from metarun.core.known_source import know_source
from metarun.core.results_file import seal
from metarun.core.run_folder import SUMS, RunFolder
from metarun.data.augment import Look
from metarun.report.runs import read_run
from metarun.run.device import name_device
from metarun.run.features import Features
from metarun.run.interrupt import STOP_FILE, Interrupted
from metarun.run.results import read_versions
from metarun.run.team import Group
from metarun.run.tracking import wandb_sink
from metarun.run.tracking.sink import RunInfo
from metarun.run.tracking.wandb_sink import WandbSink
from metarun.settings.build import build_logger, build_parts, build_source
from metarun.settings.reopen import SavedSettings
from metarun.settings.resolve import resolve

Settings = Callable[..., DictConfig]

RUNS = Path(__file__).parent / "data" / "runs"

STATES = ("finished", "failed", "interrupted")
RUN_AGAIN = {"interrupted": {"interrupted"}, "failed": {"interrupted", "failed"}, "all": set(STATES)}
"""What a job ended as in an earlier sweep for it to run again, by sweep.rerun."""

RAN = 7
"""The exit code of a job that ran, in place of running: no job that does not run has it."""


class Sweep:
    """A sweep's folder with a job in it, as Hydra leaves it before it calls the job."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.job = folder, folder / "job"
        write_settings(self.job, plain_settings())
        (self.job / ".hydra" / "overrides.yaml").write_text("[seed=0]")
        self.now = 1_000_000_000
        self.write(folder / STARTED_FILE, "", self.now)

    def write(self, file: Path, text: str, at: int) -> None:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        os.utime(file, (at, at))

    def leave(self, state: str, at: int, job: Path | None = None) -> None:
        """Have the job end as `state`, at that time."""
        results = {"status": state, "error": None, "steps": 40, "test": {"accuracy": {"mean": 0.5}}}
        self.write((job or self.job) / "results.json", json.dumps(results), at)

    def call(self, rerun: str) -> int:
        return composed.run_new(OmegaConf.create(plain_settings() | {"sweep": {"rerun": rerun}}))


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    found = Sweep(tmp_path / "sweep")
    told(monkeypatch, found.job, mode="MULTIRUN", sweep={"dir": str(found.folder)})
    monkeypatch.setattr(composed, "run_job", lambda *_: RAN)
    return found


def told(monkeypatch: pytest.MonkeyPatch, folder: Path, **more: Any) -> None:
    """Have Hydra tell what it does of a job in that folder."""
    known: dict[str, Any] = {
        "runtime": {"output_dir": str(folder), "choices": {}, "config_sources": []},
        "overrides": {"task": ["seed=0"]},
    }
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(known | more))


@pytest.mark.parametrize(("rerun", "state"), [*product(RUN_AGAIN, STATES)])
def test_a_job_of_an_earlier_sweep_runs_again_where_sweep_rerun_says_so(sweep: Sweep, rerun: str, state: str) -> None:
    """One that does not ends the way it did; and the table says beforehand what will happen: waiting, or not."""
    sweep.leave(state, sweep.now - 60)
    again = state in RUN_AGAIN[rerun]
    assert (read_job(sweep.job, sweep.now, rerun).state == "waiting") == again
    assert sweep.call(rerun) == (RAN if again else {"finished": 0, "failed": 1}[state])


@pytest.mark.parametrize("rerun", RUN_AGAIN)
def test_a_job_that_never_ended_runs_whatever_sweep_rerun_says(sweep: Sweep, rerun: str) -> None:
    assert sweep.call(rerun) == RAN


@pytest.mark.parametrize("state", STATES)
def test_the_table_shows_what_became_of_a_job_in_this_sweep_and_in_an_earlier_one(sweep: Sweep, state: str) -> None:
    sweep.leave(state, sweep.now + 60)
    assert {read_job(sweep.job, sweep.now, rerun).state for rerun in RUN_AGAIN} == {state}
    sweep.leave(state, sweep.now - 60)
    shown = {"finished": "skipped", "failed": "failed", "interrupted": "waiting"}
    assert read_job(sweep.job, sweep.now).state == shown[state]


def test_a_job_that_runs_anew_begins_without_what_was_there_but_for_what_this_sweep_made(sweep: Sweep) -> None:
    """A job that its launcher put back into the queue has files of this sweep, which it goes on from."""
    for at, name in ((-60, "old"), (60, "new")):
        sweep.write(sweep.job / f"{name}.log", "", sweep.now + at)
        sweep.write(sweep.job / name / "last.pt", "", sweep.now + at)
        os.utime(sweep.job / name, (sweep.now + at,) * 2)
    os.utime(sweep.job / ".hydra", (sweep.now - 60,) * 2)
    assert sweep.call("all") == RAN
    assert sorted(path.name for path in sweep.job.iterdir()) == [".hydra", "new", "new.log"]
    assert (sweep.job / "new" / "last.pt").is_file()


@pytest.mark.parametrize("rerun", ["interrupted", "failed"])
def test_a_job_that_runs_again_finds_what_was_there(sweep: Sweep, rerun: str) -> None:
    sweep.leave("interrupted", sweep.now - 60)
    sweep.write(sweep.job / "checkpoints" / "last.pt", "", sweep.now - 60)
    assert sweep.call(rerun) == RAN
    assert (sweep.job / "checkpoints" / "last.pt").is_file()


def test_no_job_of_a_stopped_sweep_starts(sweep: Sweep) -> None:
    (sweep.folder / STOP_FILE).touch()
    assert sweep.call("all") == 130


def test_a_run_of_its_own_does_not_write_over_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: Sweep
) -> None:
    told(monkeypatch, tmp_path / "free", mode="RUN")
    assert sweep.call("interrupted") == RAN
    told(monkeypatch, sweep.job, mode="RUN")
    with pytest.raises(ConfigError, match=rf"already holds a run; go on with it by: metarun resume {sweep.job}"):
        sweep.call("all")


@pytest.mark.parametrize(
    ("ended", "expected", "code"),
    [
        (["finished", "finished"], "seed=0,1", 0),
        (["finished", "failed"], "seed=0,1", 1),
        (["failed", "finished"], "seed=0,1", 1),
        (["finished", "interrupted"], "seed=0,1", 1),
        (["finished"], "seed=0,1", 1),  # the other one never began
        (["finished", "finished", "failed"], "seed=0", 1),
        ([], "seed=0", 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("age", [-60, 60], ids=["earlier", "now"])
def test_a_sweep_ends_with_1_unless_every_job_is_finished(
    sweep: Sweep, ended: list[str], expected: str, code: int, age: int
) -> None:
    """In it or in an earlier one."""
    folder = sweep.folder.parent / "other"
    for place, state in enumerate(ended):
        write_settings(folder / str(place), plain_settings())
        (folder / str(place) / ".hydra" / "overrides.yaml").write_text(f"[seed={place}]")
        sweep.leave(state, int(folder.stat().st_mtime) + age, folder / str(place))
    with table_of(folder, expected) as table:
        assert table.find_exit_code() == code


@contextmanager
def table_of(folder: Path, *overrides: str) -> Iterator[SweepTable]:
    """The table of a sweep by these overrides in that folder, while the sweep goes on."""
    hydra = {
        "sweep": {"dir": str(folder)},
        "launcher": {"_target_": "BasicLauncher"},
        "sweeper": {"_target_": "BasicSweeper"},
        "overrides": {"task": [*overrides]},
    }
    table = SweepTable()
    table.on_multirun_start(OmegaConf.create({"sweep": {"rerun": "interrupted"}, "hydra": hydra}))
    try:
        yield table
    finally:
        table._stop()


def job_of(sweep: Sweep, name: str, steps: int) -> Path:
    """One that is at this step of 40, of which each tenth is told; 10 steps take 2 seconds."""
    write_settings(sweep.folder / name, plain_settings())
    (sweep.folder / name / ".hydra" / "overrides.yaml").write_text(f"[seed={name}, algo=maml]")
    write_metrics(sweep.folder / name, steps)
    return sweep.folder / name


def test_the_table_tells_of_a_running_job_its_step_its_last_validation_and_the_time_to_go(sweep: Sweep) -> None:
    """At step 20 of 40 after 4 s of training: 4 s to go. Validated at 0.2 + 20 / 200, after 0.25 at step 10; a
    training line would say 0.4."""
    running = read_job(job_of(sweep, "1", 20), sweep.now)
    assert (running.state, running.step, running.steps, running.left) == ("running", 20, 40, pytest.approx(4.0))
    assert (running.score, running.error, running.done) == ("30.00 %", None, False)
    just_begun = read_job(job_of(sweep, "2", 0), sweep.now)
    assert (just_begun.state, just_begun.step, just_begun.left, just_begun.score) == ("running", 0, None, "")


@pytest.mark.parametrize("half", ['{"step": 30, "split": "tra', '{"step": 30, "split": "train", "seconds": 6.0}'])
def test_a_line_that_is_being_written_is_not_read_yet(sweep: Sweep, half: str) -> None:
    """Though it may be whole but for its end."""
    folder = job_of(sweep, "1", 20)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(half)
    assert read_job(folder, sweep.now).step == 20


@pytest.mark.parametrize("text", [None, "", "seed: 0", "run: [", "run: {steps: many}", "run: ${run}", "a: &a [*a]"])
@pytest.mark.parametrize("name", ["config.yaml", "overrides.yaml", "../results.json", "../metrics.jsonl"])
def test_the_table_reads_a_job_at_any_moment_of_its_writing_and_whatever_lies_there(
    sweep: Sweep, name: str, text: str | None
) -> None:
    """A file of it is missing, as before it is written and after it is taken away, or is no such file. Without
    settings, which a job writes last, there is no job yet; whatever else, the others are read."""
    folder, other = job_of(sweep, "1", 20), job_of(sweep, "2", 20)
    path = (folder / ".hydra" / name).resolve()
    path.unlink(missing_ok=True)
    if text is not None:
        path.write_text(text)
    with table_of(sweep.folder, "seed=1,2") as table:
        jobs = {job.folder: job for job in table._read_jobs() if job.folder in (folder, other)}
    assert jobs[other] == read_job(other, sweep.now)
    if name == "config.yaml" and text is None:
        assert folder not in jobs
    else:
        whole = jobs[other].steps
        assert (jobs[folder].state, jobs[folder].steps) == ("running", 0 if name == "config.yaml" else whole)


def test_of_many_lines_the_last_are_read_though_their_part_of_the_file_begins_within_a_line(sweep: Sweep) -> None:
    """The last 8 KiB, of 40 lines of about 1,000 bytes."""
    folder = job_of(sweep, "1", 0)
    lines = [
        {"step": step, "split": split, "accuracy": step / 100, "seconds": 1.0, "note": "x" * 900}
        for step in range(1, 21)
        for split in ("train", "val")
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    job = read_job(folder, sweep.now)
    assert (job.step, job.score) == (20, "20.00 %")


def test_the_table_says_of_each_job_once_how_it_ended_and_of_a_failed_one_why(
    sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad, goes_on = (job_of(sweep, name, 20) for name in "123")
    with table_of(sweep.folder, "seed=1,2,3") as table:
        finished_at = int(table.since) + 60
        sweep.leave("finished", finished_at, good)
        sweep.write(bad / "results.json", json.dumps({"status": "failed", "error": "Diverged: no"}), finished_at)
        table._look()
        table._look()
        jobs = {job.folder: job.state for job in table._read_jobs()}
    out = capsys.readouterr().out
    assert out.count("finished: seed=1 algo=maml  50.00 %\n") == 1
    assert out.count("failed: seed=2 algo=maml  Diverged: no\n") == 1
    assert "seed=3" not in out
    assert (jobs[good], jobs[bad], jobs[goes_on]) == ("finished", "failed", "running")


def test_a_sweep_that_begins_again_takes_away_the_file_that_stopped_it_and_is_younger_than_what_is_there(
    sweep: Sweep,
) -> None:
    (sweep.folder / STOP_FILE).touch()
    sweep.leave("finished", sweep.now - 60)
    with table_of(sweep.folder, "seed=0") as table:
        assert not (sweep.folder / STOP_FILE).exists()
        assert (sweep.folder / STARTED_FILE).stat().st_mtime == table.since > sweep.now
        assert [job.state for job in table._read_jobs()] == ["skipped"]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Interrupted(15), 143, ""),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(), 143, ""),
        (OSError("no memory\nat all"), 1, "the launcher failed: OSError: no memory (traceback in "),
    ],
)
@pytest.mark.parametrize("remote", [True, False])
def test_a_sweep_that_breaks_off_stops_the_jobs_of_this_machine_and_says_so(
    sweep: Sweep, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str, remote: bool
) -> None:
    """In this order: they are asked to stop, waited for, and only then does nobody take the signals any more."""
    done: list[str] = []
    calls = {name: (lambda name=name: done.append(name)) for name in ("stop", "wait", "give_signals_back")}
    with table_of(sweep.folder, "seed=0") as table:
        table.launch = SimpleNamespace(remote=remote, signum=None, find_problem=lambda: None, **calls)
        assert table.break_off(error) == code
    assert done == ([] if remote else ["stop", "wait"]) + ["give_signals_back"]
    out = " ".join(capsys.readouterr().out.split())
    assert said in out
    assert ("the launcher failed" in out) == (sweep.folder / "launcher.log").exists() == bool(said)
    assert ("what the cluster has already goes on" in out) == remote
    assert out.endswith("the sweep stopped; the same command goes on with it")


def test_what_a_sweep_says_at_its_end_stays_a_line_and_tells_no_secret(
    sweep: Sweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever pastes a command that a narrow screen broke in two has typed another one."""
    monkeypatch.setenv("COLUMNS", "30")
    with table_of(sweep.folder, "seed=0") as table:
        table.launch = SimpleNamespace(remote=True, signum=None, find_problem=lambda: None, give_signals_back=list)
        table.break_off(OSError("at https://me:secret@example.org/x"))
    out = capsys.readouterr().out
    assert "the launcher failed: OSError: at https://me:***@example.org/x (traceback in " in out
    assert "the sweep stopped; the same command goes on with it\n" in out


@pytest.mark.parametrize("signum", [None, 15])
def test_a_sweep_whose_launcher_was_stopped_is_not_concluded_and_ends_by_the_signal(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, signum: int | None
) -> None:
    sweep.leave("finished", sweep.now - 60)
    concluded: list[Path] = []
    monkeypatch.setattr("metarun.app.sweeps.table.conclude", lambda folder, *_: concluded.append(folder))
    with table_of(sweep.folder, "seed=0") as table:
        table.launch = SimpleNamespace(signum=signum, give_signals_back=lambda: None)
        table.on_multirun_end(OmegaConf.create({}))
        assert table.find_exit_code() == (143 if signum else 0)
    assert concluded == ([] if signum else [sweep.folder])


LEARNERS = [  # and which way its scores are to go
    (("algo=protonet",), "maximize"),
    (("algo=maml", "data=sinusoid"), "minimize"),
    (("algo=cnp", "data=sinusoid"), "maximize"),
]


def objective() -> float | str | None:
    """What a search is told of the job, or why not: a refusal is a KeyboardInterrupt, which would end the tests."""
    try:
        return search.read_objective()
    except Refused as refusal:
        return str(refusal)


@pytest.mark.parametrize(("words", "right"), LEARNERS, ids=["accuracy", "squared error", "log-likelihood"])
def test_a_search_is_for_the_best_validation_score_of_what_it_searches(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], right: str
) -> None:
    """Scores as the learner names them, each of another value, and none of a test value."""
    config = settings(*words)
    parts = build_parts(resolve(config), tmp_path)
    scores = parts.learner.eval().evaluate(next(parts.source.episodes("val", 0, 1)))
    val = {name: 0.25 + place for place, name in enumerate(scores)}
    test = {name: {"mean": 100.0 + place} for place, name in enumerate(scores)}
    name = {"algo=protonet": "accuracy", "algo=maml": "mse", "algo=cnp": "log_likelihood"}[words[0]]
    finished(tmp_path / "run", [0.5], val=val, test=test)
    told(monkeypatch, tmp_path / "run", sweeper={"direction": right})
    assert objective() == val[name]
    wrong = {"maximize": "minimize", "minimize": "maximize"}[right]
    told(monkeypatch, tmp_path / "run", sweeper={"direction": wrong})
    assert f"chosen by their {name}: set hydra.sweeper.direction={right}" in str(objective())


def test_a_sweep_without_a_direction_and_a_job_that_failed_are_told_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(tmp_path / "run", [0.5])
    told(monkeypatch, tmp_path / "run", sweeper={})
    assert objective() == 0.6  # what run_folders says of validation
    for status in ("failed", "interrupted"):
        finished(tmp_path / status, [0.5], status=status)
        told(monkeypatch, tmp_path / status, sweeper={"direction": "minimize"})
        assert objective() is None
    told(monkeypatch, tmp_path, sweeper={"direction": "minimize"})
    assert objective() is None


def run(
    config: DictConfig, folder: Path, stop: Path | None = None, typed: Sequence[str] = ()
) -> tuple[int, dict[str, Any]]:
    """Exit code and results.json of a job."""
    groups = {name: f"the {name}" for name in ("algo", "data", "backbone", "optim", "run", "logger")}
    file = RunFolder(folder).settings
    write = partial(OmegaConf.save, config, file) if not file.exists() else lambda: None
    code = job.run_job(partial(resolve, config, groups), folder, [*typed], None, stop, write)
    return code, RunFolder(folder).read_results()


def test_a_job_that_diverges_ends_with_1_and_says_from_where_it_can_go_on(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first step of rate 1e30 makes weights so large that the second loss is no number."""
    config = settings("algo=protonet", "optim=sgd", "optim.lr=1e30", "optim/schedule=constant", "bn=none")
    code, results = run(config, tmp_path / "run")
    assert (code, results["status"], results["test"], results["saved_step"]) == (1, "failed", None, 1)
    assert results["error"].startswith("Diverged: loss is ")
    said = " ".join(capsys.readouterr().out.split())
    assert "the numbers blew up: try a smaller optim.lr" in said
    assert "go on from the checkpoint of step 1 with: metarun resume" in said
    assert "the traceback is in " in said
    where = results["diverged"]
    task = "" if where["task"] is None else f" --task {where['task']}"
    assert f"look at its tasks with: metarun replay {tmp_path / 'run'} --step {where['step']}{task} " in said


def test_a_job_whose_data_is_split_in_another_way_than_its_checkpoint_says_is_wrong_input(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """10 alphabets and then 11: other classes. All that is in its folder stays as it was."""
    assert run(settings("algo=protonet"), tmp_path / "run")[0] == 0
    before = contents(tmp_path)
    assert run(settings("algo=protonet", "data.alphabets=11"), tmp_path / "run")[0] == 2
    assert "was trained on another split of the data" in " ".join(capsys.readouterr().err.split())
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_job_that_fails_before_its_first_checkpoint_says_that_it_goes_on_from_the_start(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["algo=protonet", "optim=sgd", "optim.lr=1e30", "optim/schedule=constant", "bn=none"]
    code, results = run(settings(*words, "run.checkpoint_every=9"), tmp_path / "run")
    assert (code, results["saved_step"]) == (1, None)
    assert "go on from the start with: metarun resume" in " ".join(capsys.readouterr().out.split())


def test_a_job_of_a_stopped_sweep_that_is_being_built_does_not_begin_to_train_and_says_nothing_on_the_screen(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All jobs of a sweep have one table."""
    stop = tmp_path / STOP_FILE
    stop.touch()
    code, results = run(settings("algo=protonet"), tmp_path / "run", stop)
    assert (code, results["status"], results["error"], results["steps"]) == (130, "interrupted", "SIGINT", 0)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert capsys.readouterr().out == ""
    stop.unlink()
    assert run(settings("algo=protonet"), tmp_path / "run", stop)[0] == 0
    assert capsys.readouterr().out == ""


def test_a_jobs_log_has_that_jobs_messages_and_its_folder_is_free_afterwards(
    settings: Settings, tmp_path: Path
) -> None:
    """While it runs, nobody else can run it."""
    handlers = [*logging.getLogger().handlers]
    logs = [tmp_path / name / "run.log" for name in ("first", "second")]
    assert run(settings("algo=protonet", "run.steps=1"), logs[0].parent)[0] == 0
    before = logs[0].read_text()
    assert run(settings("algo=protonet", "run.steps=1", "run.test_tasks=5"), logs[1].parent)[0] == 0
    assert "run.test_tasks=5 is few" in logs[1].read_text()  # said before the run was accepted
    assert "testing the checkpoint" in logs[1].read_text()
    assert logs[0].read_text() == before
    assert logging.getLogger().handlers == handlers
    held = Claim(logs[0].parent, Console(quiet=True), lambda: None)
    with held, pytest.raises(ConfigError, match=f"another process is running {tmp_path}/first"):
        run(settings("algo=protonet", "run.steps=1"), logs[0].parent)
    assert run(settings("algo=protonet", "run.steps=1"), logs[0].parent)[0] == 0


@pytest.mark.parametrize("wrong", ["run.steps=-1", "data.n_way=60", "run.processes=999", "optim.lr=-1"])
def test_a_run_that_is_refused_says_why_and_leaves_nothing(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    """Wrong by itself, for the data, for the machine."""
    code, results = run(settings("algo=protonet", wrong), tmp_path / "run")
    assert (code, results) == (2, {})
    assert wrong in capsys.readouterr().err
    assert list((tmp_path / "run").iterdir()) == []


def test_a_job_of_a_sweep_with_wrong_settings_leaves_why_and_what_was_typed(settings: Settings, tmp_path: Path) -> None:
    code, results = run(settings("run.steps=-1"), tmp_path, tmp_path / STOP_FILE, typed=["run.steps=-1"])
    error = "run.steps=-1 must be a whole number of at least 0"
    assert (code, results) == (2, seal({"status": "failed", "overrides": ["run.steps=-1"], "error": error, SUMS: {}}))


def test_results_say_what_ran_on_what_and_which_tasks_it_was_tested_on(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each setting unlike its default. The network: 3x3 convolutions from 1 to 8 channels and three times from 8 to 8
    are 72 + 3 * 576, scales and shifts of four BatchNorm layers 4 * 16."""
    monkeypatch.setattr(describe, "read_git_state", lambda: {"commit": "abc", "dirty": True})
    config = settings(
        "algo=protonet", "seed=3", "bn=support", "data.n_way=4", "data.k_shot=2", "data.train.n_way=6",
        "data.train.k_shot=1", "data.train.n_query=5", "run.meta_batch_size=2", "run.steps=2", "threads=1",
        "paper={value: 0.5, ci95: null, source: a table}",
    )  # fmt: skip
    code, results = run(config, tmp_path / "run", typed=["seed=3", "bn=support"])
    assert code == 0
    expected = {
        "status": "finished", "error": None, "algo": "the algo", "data": "the data", "backbone": "the backbone",
        "seed": 3, "n_way": 4, "k_shot": 2, "n_query": 3, "train": {"n_way": 6, "k_shot": 1, "n_query": 5},
        "meta_batch_size": 2, "bn": "support", "git": {"commit": "abc", "dirty": True}, "versions": read_versions(),
        "overrides": ["seed=3", "bn=support"], "wandb_id": None, "engine": "vectorized", "parameters": 1864,
        "paper": {"value": 0.5, "ci95": None, "source": "a table"}, "device": "cpu", "processes": 1, "threads": 1,
        "device_name": name_device(torch.device("cpu")), "trainval": False, "steps": 2, "saved_step": 2, "best_step": 2,
        "directions": {"loss": "lower", "accuracy": "higher"},
    }  # fmt: skip
    assert {name: results[name] for name in expected} == expected
    source = build_source(resolve(config), torch.device("cpu"))
    assert results["split_sha256"] == source.info.split_sha256
    assert results["episode_sha256"] == source.fingerprint("test", 12) != source.fingerprint("test", 6)
    assert results["source"] == source.info.facts != {}


def test_results_say_the_processes_the_device_and_that_val_was_trained_on(settings: Settings, tmp_path: Path) -> None:
    parts = build_parts(resolve(settings("algo=protonet")), tmp_path)
    parts.group, parts.device = Group(0, 3), torch.device("meta")
    parts.source.info = replace(parts.source.info, facts={"trainval": True})
    found = describe.describe_parts(parts)
    assert (found["device"], found["processes"], found["trainval"]) == ("meta", 3, True)
    assert found["device_name"] == "meta"
    assert found["threads"] == torch.get_num_threads()


class FakeWandb(SimpleNamespace):
    """W&B as the sink calls it: each `init` is noted with its options, and with what is logged after it."""

    def __init__(self) -> None:
        self.begun: list[SimpleNamespace] = []
        self.ended: list[int] = []
        self.errors = SimpleNamespace(Error=ConnectionError)
        self.log: Callable[[dict[str, Any]], None] = lambda row: None

    def init(self, **options: Any) -> SimpleNamespace:
        rows: list[dict[str, Any]] = []
        run = SimpleNamespace(
            options=options, id=options["id"], url=None, disabled=False, rows=rows, summary={}, metrics={}
        )
        run.log = lambda row, **_: (rows.append(row), self.log(row))
        run.dir, run.save = options["dir"], lambda *_, **__: None
        run.define_metric = lambda name, **how: run.metrics.update({name: how})
        run.finish = lambda exit_code: self.ended.append(exit_code)
        self.begun.append(run)
        return run

    Settings = staticmethod(lambda **options: SimpleNamespace(**options, update_from_env_vars=lambda named: None))
    Image = Html = staticmethod(lambda *_, **__: "shown")


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    rows = lambda _: sum("step" in row for one in fake.begun for row in one.rows)  # noqa: E731
    monkeypatch.setattr(wandb_sink, "find_last_row", rows)
    return fake


def sink_in(folder: Path, best: dict[str, float] | None = None) -> WandbSink:
    info = RunInfo("run", "group", "train", [], {}, folder, best=best or {})
    return WandbSink(info, "tests", None, "offline", None, None, 5.0, 5.0)


@pytest.mark.parametrize(
    ("score", "best"), [("accuracy", [0.3, 0.9, 0.9]), ("log_likelihood", [0.3, 0.9, 0.9]), ("mse", [0.3, 0.3, 0.3])]
)
def test_the_best_metric_of_wandb_is_the_best_so_far_not_the_last(
    wandb: FakeWandb, tmp_path: Path, score: str, best: list[float]
) -> None:
    sink = sink_in(tmp_path)
    for step, value in enumerate((0.3, 0.9, 0.5)):
        sink.log(step, "val", {"loss": 2.0 - value, score: value})
    assert [row[f"val/best_{score}"] for row in wandb.begun[0].rows] == best


def test_the_best_metric_of_wandb_goes_on_where_a_resumed_run_does(wandb: FakeWandb, tmp_path: Path) -> None:
    sink_in(tmp_path, {"accuracy": 0.9}).log(4, "val", {"loss": 1.0, "accuracy": 0.6})
    assert wandb.begun[0].rows[0]["val/best_accuracy"] == 0.9


def test_a_run_that_is_resumed_is_the_same_wandb_run_and_every_metric_has_its_outer_step(
    settings: Settings, wandb: FakeWandb, tmp_path: Path
) -> None:
    """It is stopped, by the file that stops a sweep, once W&B is told of step 2 of 4; each line of metrics.jsonl is a
    row of W&B's, beside its step."""
    stop = tmp_path / STOP_FILE
    wandb.log = lambda row: stop.touch() if row.get("step") == 2 else None
    config = settings("algo=protonet", "logger=wandb", "logger.mode=offline")
    code, results = run(config, tmp_path / "run", stop)
    assert (code, results["status"], results["saved_step"]) == (130, "interrupted", 2)
    stop.unlink()
    wandb.log = lambda row: None
    code, results = run(config, tmp_path / "run", stop)
    assert (code, results["status"]) == (0, "finished")
    first, second = wandb.begun
    assert second.options["id"] == first.options["id"] == results["wandb_id"]
    assert second.options["resume"] == "allow"
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["split"], line["step"]) for line in lines] == [
        ("train", 1), ("train", 2), ("val", 2), ("train", 3), ("train", 4), ("val", 4), ("test", 4)
    ]  # fmt: skip
    rows = [row for row in first.rows + second.rows if "step" in row]
    assert len(rows) == len(lines)
    for row, line in zip(rows, lines, strict=True):
        step, split = line.pop("step"), line.pop("split")
        assert row["step"] == step
        assert {f"{split}/{name}": value for name, value in line.items()}.items() <= row.items()
    assert all(first.metrics[f"{split}/*"] == {"step_metric": "step"} for split in ("train", "val", "test"))


def test_a_run_that_is_resumed_has_no_results_before_its_end_and_its_sweep_shows_it_running(
    settings: Settings, wandb: FakeWandb, tmp_path: Path
) -> None:
    """Stopped at step 2 of 4, and looked at whenever W&B is told something: those of the first half are gone."""
    stop, folder, seen = tmp_path / STOP_FILE, tmp_path / "run", []
    config = settings("algo=protonet", "logger=wandb", "logger.mode=offline")
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(config, folder / ".hydra" / "config.yaml")
    (folder / ".hydra" / "overrides.yaml").write_text("[algo=protonet]")
    (folder / ".hydra" / "hydra.yaml").write_text("hydra: {overrides: {task: [algo=protonet]}}")

    def look(row: dict[str, Any]) -> None:
        if "step" not in row:  # a picture, that of the curves after the end
            return
        here, there = read_job(folder, 0.0), read_run(folder)
        seen.append(((folder / "results.json").exists(), here.state, there and there.state, here.step))
        if row["step"] == 2:
            stop.touch()

    wandb.log = look
    code, _ = run(config, folder, stop)
    assert (code, read_job(folder, 0.0).state, read_job(folder, 1e12).state) == (130, "interrupted", "waiting")
    stop.unlink()
    running = [(False, "running", "running")]
    assert [look[:3] for look in seen] == running * len(seen)
    seen.clear()
    assert run(config, folder, stop)[0] == 0
    assert [look[:3] for look in seen] == running * len(seen)
    assert {look[3] for look in seen} == {3, 4}
    assert (read_job(folder, 0.0).state, read_job(folder, 1e12).state) == ("finished", "skipped")
    assert wandb.ended == [130, 0]


def test_a_job_that_is_resumed_by_hand_stays_in_its_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str | None] = []
    monkeypatch.setattr(job, "run_job", lambda resolve, folder, overrides, sweep: told.append(sweep) or 0)
    for mode in ("RUN", "MULTIRUN"):
        folder = Path(shutil.copytree(RUNS / "interrupted", tmp_path / f"of {mode}" / "job"))
        hydra = folder / ".hydra" / "hydra.yaml"
        hydra.write_text(hydra.read_text().replace("\n  mode: RUN\n", f"\n  mode: {mode}\n"))
        assert resume(folder, []) == 0
    assert told == [None, "of MULTIRUN"]


def test_the_logger_of_a_resumed_run_is_told_its_id_and_its_best_validation(
    settings: Settings, wandb: FakeWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[RunInfo] = []
    monkeypatch.setattr(job, "build_logger", lambda node, info: (told.append(info), build_logger(node, info))[1])
    stop = tmp_path / STOP_FILE
    wandb.log = lambda row: stop.touch() if row.get("step") == 2 else None
    config = settings("algo=protonet", "logger=wandb", "logger.mode=offline")
    results = run(config, tmp_path / "run", stop)[1]
    stop.unlink()
    run(config, tmp_path / "run", stop)
    assert (told[0].id, told[0].best) == (None, {})
    assert (told[1].id, told[1].best) == (results["wandb_id"], results["val"])
    assert set(told[1].best) == {"loss", "accuracy"}


def test_every_sink_is_ended_though_a_picture_fails(
    settings: Settings, wandb: FakeWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise OSError("no fonts here")

    monkeypatch.setattr(job, "show_curves", fails)
    with pytest.raises(OSError, match="no fonts"):
        run(settings("algo=protonet", "run.steps=1", "logger=wandb", "logger.mode=offline"), tmp_path / "run")
    assert wandb.ended == [0]
    assert json.loads((tmp_path / "run" / "results.json").read_text())["status"] == "finished"


def test_a_test_on_other_images_of_the_same_size_normalises_them_as_the_networks_own(
    settings: Settings, tmp_path: Path
) -> None:
    """Glyphs, which are 0 to 1 by themselves, for a network of gray 28x28 images less 0.75, over 0.25."""
    own = noise_tasks()
    own.look = Look(mean=(0.75,), std=(0.25,))
    modes, results = ["transductive"], {"algo": "protonet"}
    test = SavedSettings(settings("data=glyphs"), {"data": "glyphs"})
    noise = replace(test, choices={"data": "noise"})
    opened, as_they_are = (
        Trained(tmp_path, results, saved, know_source(own), {}, modes, torch.device("cpu"), Features(tmp_path, ""))
        for saved in (noise, test)
    )
    pixels, seen = (
        next(run.open_source(test.resolve(), {}).episodes("test", 0, 2)).query.x for run in (as_they_are, opened)
    )
    assert pixels.min() == 0
    assert 0.9 < pixels.max() <= 1
    assert torch.allclose(seen, (pixels - 0.75) / 0.25)
