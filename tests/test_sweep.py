"""Multirun as a person uses it: every job a folder, nothing done twice, nothing lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from commands import TINY, jobs_of, lines_of, metarun, results_of, start, wait_for_step
from hydra.core.global_hydra import GlobalHydra

from metarun.app.sweeps.job_state import Job
from metarun.app.sweeps.name import name_sweep
from metarun.app.sweeps.progress import describe_progress, estimate_left
from metarun.app.sweeps.table import SAY_EVERY, SweepTable, count_jobs
from metarun.cli import command
from metarun.core.screen import Screen

WAYS = ["seed=0,1", "data.n_way=5,60", "data.train.n_way=${data.n_way}"]


@pytest.mark.slow
def test_every_job_has_a_folder_and_a_failed_one_does_not_stop_the_others(tmp_path: Path, cache: Path) -> None:
    code, out, _ = metarun("-m", *TINY, *WAYS, cwd=tmp_path, cache=cache)
    states = [results_of(folder)["status"] for folder in jobs_of(tmp_path)]
    assert sorted(states) == ["failed", "failed", "finished", "finished"]
    assert code == 1
    assert out.count("failed: ") == 2
    assert "needs 60 classes" in out
    assert "2 of 4 done" in out


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert name.startswith("glyphs-maml+protonet-k_shot-")
    assert name == name_sweep(
        ["data.k_shot=1,5", "-m", "seed=0", "algo=maml,protonet", "sweep.rerun=all", "logger=none"]
    )
    assert name != name_sweep(["-m", "algo=maml,protonet", "data.k_shot=1,5", "seed=1"])
    told = ["notes=a", "+tags=[b]", "inspect=profile", "run.processes=1", "logger=wandb", "hydra/launcher=joblib"]
    assert name == name_sweep(["-m", "algo=maml,protonet", "data.k_shot=1,5", "seed=0", *told])
    assert len(name_sweep(["-m", *(f"{'x' * 40}{i}=1,2" for i in range(9))])) < 100


@pytest.mark.parametrize(
    ("words", "begin"),
    [
        (["seed=0,1"], "glyphs-maml-seed-"),
        (["+experiment=quick/omniglot_5w1s", "algo=anil,maml,boil,reptile", "seed=0,1"], "omniglot-anil+3-seed-"),
        (["data=glyphs,sinusoid", "optim.lr=0.1,0.2"], "glyphs+sinusoid-maml-lr-"),
        (["search=protonet", "algo=protonet"], "glyphs-protonet-search-protonet-"),
        (["runs=mine/study.yaml", "data=gp", "seed=range(3)"], "gp-study-seed-"),
        (["algo=no_such,maml", "seed=0,1"], "no_such+maml-seed-"),  # which Hydra refuses later
    ],
)
def test_a_sweeps_name_has_its_data_and_algorithms(words: list[str], begin: str) -> None:
    assert name_sweep(["-m", *words]).rpartition("-")[0] + "-" == begin


def test_a_sweep_that_an_older_version_named_otherwise_keeps_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["-m", "algo=maml,protonet", "seed=0,1"]
    old = f"algo-seed-{name_sweep(words).rpartition('-')[2]}"
    (tmp_path / "outputs" / "sweeps" / old).mkdir(parents=True)
    assert name_sweep(words) == old
    assert name_sweep([*words, "paths.outputs=elsewhere"]) != old


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


STUDY = """\
- algo.inner_steps=1
- algo.inner_steps=2 algo.test_inner_steps=4
- algo=protonet 'data.n_query=1,2'
"""


@pytest.mark.slow
def test_a_list_of_runs_that_is_no_grid_is_one_sweep(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    short = ["run.steps=1", "run.val_every=1", "run.val_tasks=2", "run.test_tasks=4"]
    tiny = [word for word in TINY if not word.startswith(("data.n_query", "algo."))]
    words = ["-m", *tiny, *short, "runs=study.yaml"]
    code, out, error = metarun(*words, "seed=0,1", cwd=tmp_path, cache=cache)
    assert code == 0, out + error
    assert "8 of 8 done" in out
    found = {}
    for folder in jobs_of(tmp_path):
        results = results_of(folder)
        steps = (results.get("inner_steps") or {}).get("train")
        found[results["algo"], steps, results["n_query"], results["seed"]] = results
    assert sorted(key[:2] for key in found if key[0] == "maml") == [("maml", 1)] * 2 + [("maml", 2)] * 2
    assert {(key[2], key[3]) for key in found if key[0] == "protonet"} == {(q, s) for q in (1, 2) for s in (0, 1)}
    assert next(iter(jobs_of(tmp_path))).parent.name.startswith("glyphs-study-seed-")
    code, out, _ = metarun(*words, "seed=0,1", cwd=tmp_path, cache=cache)
    assert (code, out.count("skipped: ")) == (0, 8)
    overrides = next(results["overrides"] for key, results in found.items() if key[1] == 2)
    assert "algo.inner_steps=2" in overrides
    assert not any(word.startswith("runs=") for word in overrides)


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        ("- algo=maml", ["runs=list.yaml"], "runs=list.yaml is a list of runs: it needs -m"),
        ("- algo=maml", ["-m", "runs=other.yaml"], "runs=other.yaml cannot be read: "),
        ("algo: maml", ["-m", "runs=list.yaml"], "runs=list.yaml is not a list of runs, each a line as - algo=anil"),
        ("[]", ["-m", "runs=list.yaml"], "runs=list.yaml is not a list of runs, each a line as - algo=anil"),
        (
            "- {algo: maml}",
            ["-m", "runs=list.yaml"],
            "runs=list.yaml, entry 1: {'algo': 'maml'} is not KEY=VALUE words",
        ),
        ("- algo=maml\n- 'seed=[1'", ["-m", "runs=list.yaml"], "runs=list.yaml, entry 2: seed=[1 cannot be read"),
        ("- seed=1", ["-m", "runs=list.yaml", "seed=0,1"], "entry 1: seed also stands on the command line"),
        ("- algo=maml\n- seed=0", ["-m", "runs=list.yaml"], "these are the same run: 'algo=maml' and 'seed=0'"),
        ("- algo=mmal", ["-m", "runs=list.yaml"], "there is no algo=mmal; did you mean maml?"),
        ("- algo=maml", ["-m", "runs=list.yaml", "search=maml"], "runs=list.yaml and a search do not go together"),
    ],
)
def test_a_list_that_cannot_be_run_is_refused_before_anything_runs(
    text: str, words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["metarun"])
    (tmp_path / "list.yaml").write_text(text)
    GlobalHydra.instance().clear()
    assert command(words) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("outputs/sweeps/*/*/.hydra"))


def job(words: str, state: str, step: int = 0) -> Job:
    return Job(Path(words), f"data=gp {words}", state, step, 200, "", None, None)


def test_a_line_tells_what_runs_how_far_and_for_how_long_still() -> None:
    """Of five jobs one is done, two are at 100 and 50 of 200 steps: 1.75 of 5 in 70 s, so 130 s for the other 3.25.

    A job that an earlier sweep finished is done, and is no work of this one.
    """
    jobs = [job("seed=0", "finished", 200), job("seed=1", "running", 100), job("seed=2", "running", 50)]
    said = "1 of 5 done, 2 running: seed=1 100/200, seed=2 50/200; about 2:10 left"
    assert describe_progress(jobs, 5, 70.0) == said
    assert estimate_left([*jobs, job("seed=3", "skipped")], 6, 70.0) == pytest.approx(130)
    many = [job(f"seed={number}", "running") for number in range(6)]
    assert describe_progress(many, 6, 70.0).endswith("seed=3 0/200, 2 more")
    assert describe_progress(jobs[:1], 5, 70.0) == ""


def test_a_sweep_in_processes_of_its_own_tells_from_time_to_time_what_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = SweepTable()
    table.folder, table.rerun, table.expected, table.since = tmp_path, "interrupted", 2, time.time() - 100
    table.said, table.next_said, table.live, table.stopped = set(), time.time() - 1, None, threading.Event()
    table.screen = Screen(width=100)
    table.launch = object()  # type: ignore[assignment]  # jobs run elsewhere
    monkeypatch.setattr(table, "_read_jobs", lambda: [job("seed=0", "running", 50), job("seed=1", "running", 100)])
    for _ in range(3):
        table._look()
    assert capsys.readouterr().out.count("0 of 2 done, 2 running: seed=0 50/200, seed=1 100/200; about") == 1
    assert table.next_said == pytest.approx(time.time() + SAY_EVERY, abs=5)
    table.launch, table.next_said = None, 0.0  # jobs that run here tell of themselves
    table._look()
    assert "running" not in capsys.readouterr().out
