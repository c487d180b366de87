"""A job within this process: when it runs again, what a sweep and a search are told of it, and how it ends."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
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
from run_folders import finished, write_settings
from run_folders import settings as plain_settings

from metarun.app.jobs import composed, job
from metarun.app.jobs.reopened import Trained
from metarun.app.sweeps import search
from metarun.app.sweeps.job_state import read_job
from metarun.app.sweeps.launch import STARTED_FILE
from metarun.app.sweeps.table import SweepTable
from metarun.core.errors import ConfigError, Refused
from metarun.data.augment import Look
from metarun.run.interrupt import STOP_FILE
from metarun.run.tracking.sink import RunInfo
from metarun.run.tracking.wandb_sink import WandbSink
from metarun.settings.build import build_parts
from metarun.settings.resolve import resolve

Settings = Callable[..., DictConfig]

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
        return composed.run_new(OmegaConf.create({"sweep": {"rerun": rerun}}))


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    found = Sweep(tmp_path / "sweep")
    told(monkeypatch, found.job, mode="MULTIRUN", sweep={"dir": str(found.folder)})
    monkeypatch.setattr(composed, "run_job", lambda *_: RAN)
    return found


def told(monkeypatch: pytest.MonkeyPatch, folder: Path, **more: Any) -> None:
    """Have Hydra tell what it does of a job in that folder."""
    known = {"runtime": {"output_dir": str(folder), "choices": {}}, "overrides": {"task": ["seed=0"]}}
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
    told(monkeypatch, sweep.job, mode="RUN")
    assert sweep.call("interrupted") == RAN
    (sweep.job / "run.log").touch()
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
    table = SweepTable()
    table.on_multirun_start(
        OmegaConf.create(
            {
                "sweep": {"rerun": "interrupted"},
                "hydra": {
                    "sweep": {"dir": str(folder)},
                    "launcher": {"_target_": "BasicLauncher"},
                    "sweeper": {"_target_": "BasicSweeper"},
                    "overrides": {"task": [expected]},
                },
            }
        )
    )
    try:
        assert table.exit_code() == code
    finally:
        table._stop()


LEARNERS = [  # and which way its scores are to go
    (("algo=protonet",), "maximize"),
    (("algo=maml", "data=sinusoid"), "minimize"),
    (("algo=cnp", "data=sinusoid"), "maximize"),
]


def objective() -> float | str | None:
    """What a search is told of the job, or why not: a refusal is a KeyboardInterrupt, which would end the tests."""
    try:
        return search.objective()
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


def run(config: DictConfig, folder: Path, stop: Path | None = None) -> tuple[int, dict[str, Any]]:
    """Exit code and results.json of a job."""
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    groups = {name: "any" for name in ("algo", "data", "backbone", "optim", "run", "logger")}
    code = job.run_job(partial(resolve, config, groups), folder, [], None, stop)
    return code, json.loads((folder / "results.json").read_text())


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


def test_a_job_whose_data_is_split_in_another_way_than_its_checkpoint_says_is_wrong_input(
    settings: Settings, tmp_path: Path
) -> None:
    """10 alphabets and then 11: other classes. Its checkpoint stays as it was."""
    assert run(settings("algo=protonet"), tmp_path / "run")[0] == 0
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    before = last.read_bytes()
    code, results = run(settings("algo=protonet", "data.alphabets=11"), tmp_path / "run")
    assert (code, results["status"]) == (2, "failed")
    assert "was trained on another split of the data" in results["error"]
    assert last.read_bytes() == before


class FakeWandb(SimpleNamespace):
    """W&B as the sink calls it: each `init` is noted with its options, and with what is logged after it."""

    def __init__(self) -> None:
        self.begun: list[SimpleNamespace] = []
        self.errors = SimpleNamespace(CommError=ConnectionError, UsageError=LookupError)
        self.log: Callable[[dict[str, Any]], None] = lambda row: None

    def init(self, **options: Any) -> SimpleNamespace:
        rows: list[dict[str, Any]] = []
        run = SimpleNamespace(options=options, id=options["id"], url=None, rows=rows, summary={}, metrics={})
        run.log = lambda row: (rows.append(row), self.log(row))
        run.define_metric = lambda name, **how: run.metrics.update({name: how})
        run.finish = lambda exit_code: None
        self.begun.append(run)
        return run

    Settings = staticmethod(lambda **options: options)
    Image = Html = staticmethod(lambda *_, **__: "shown")


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def sink_in(folder: Path, best: dict[str, float] | None = None) -> WandbSink:
    info = RunInfo("run", "group", "train", [], {}, folder, best=best or {})
    return WandbSink(info, "tests", None, "offline", None, None, 5.0)


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


def test_a_test_on_other_images_of_the_same_size_normalises_them_as_the_networks_own(
    settings: Settings, tmp_path: Path
) -> None:
    """Glyphs, which are 0 to 1 by themselves, for a network of gray 28x28 images less 0.75, over 0.25."""
    own = noise_tasks()
    own.look = Look(mean=(0.75,), std=(0.25,))
    config = settings("data=glyphs")
    modes, results = ["transductive"], {"algo": "protonet"}
    opened = Trained(tmp_path, results, config, "noise", own, {}, modes, torch.device("cpu"))
    as_they_are = Trained(tmp_path, results, config, "glyphs", own, {}, modes, torch.device("cpu"))
    pixels, seen = (
        next(run.opened(config, "glyphs", {}).episodes("test", 0, 2)).query.x for run in (as_they_are, opened)
    )
    assert pixels.min() == 0
    assert 0.9 < pixels.max() <= 1
    assert torch.allclose(seen, (pixels - 0.75) / 0.25)
