from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import TINY, metarun, results_of
from run_folders import finished
from wandb.proto.wandb_internal_pb2 import Record

from metarun.app.jobs.describe import find_own
from metarun.report.runs import find_runs
from metarun.run.tracking import wandb_sink
from metarun.run.tracking.json_lines import JsonLines
from metarun.run.tracking.sink import RunInfo
from metarun.run.tracking.tensorboard_sink import TensorBoardSink
from metarun.run.tracking.uploads import list_uploads
from metarun.run.tracking.wandb_sink import WandbSink
from metarun.run.tracking.wandb_words import drop_equal, list_tests, nest

OPTIONS: dict[str, Any] = {
    "project": "tests",
    "entity": None,
    "mode": "offline",
    "group": None,
    "tags": ["mine"],
    "init_timeout": 5,
    "finish_timeout": 5,
}
RESULTS = {
    "status": "finished",
    "best_step": 20,
    "val": {"accuracy": 0.5},
    "test": {"accuracy": {"mean": 0.625, "ci95": 0.125, "n_tasks": 8}},
}


def info(folder: Path, name: str = "run", **more: Any) -> RunInfo:
    folder.mkdir(exist_ok=True)
    return RunInfo(name, "group", "train", ["maml"], {"algo": "maml", "algo.inner_lr": 0.5}, folder, **more)


def records(folder: Path) -> list[Record]:
    """Everything in the folder's offline runs, once W&B's service, which goes on after `finish`, has written it."""
    for _ in range(200):
        found = list(parsed(folder))
        if any(record.HasField("exit") for record in found):
            return found
        time.sleep(0.1)
    pytest.fail(f"no finished offline run under {folder}")


def parsed(folder: Path) -> Iterator[Record]:
    """A 7-byte header, then LevelDB log blocks of 32 KiB."""
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        data, at, pieces = path.read_bytes(), 7, b""
        while at < len(data):
            if 32768 - at % 32768 < 7:
                at += 32768 - at % 32768
                continue
            _, length, kind = struct.unpack("<IHB", data[at : at + 7])
            pieces += data[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):  # whole, or last piece
                record = Record()
                record.ParseFromString(pieces)
                pieces = b""
                yield record


def items(update: Any) -> dict[str, Any]:
    return {(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in update}


def test_an_offline_wandb_run_holds_config_metrics_and_summary(tmp_path: Path) -> None:
    sink = WandbSink(info(tmp_path / "r"), **OPTIONS)
    sink.log(10, "train", {"loss": 1.5, "accuracy": 0.25})
    sink.log(20, "val", {"loss": 1.0, "accuracy": 0.5})
    sink.finish(RESULTS, 0)
    found = records(tmp_path / "r")
    head = next(record.run for record in found if record.HasField("run"))
    assert (head.project, head.display_name, head.run_group, head.job_type) == ("tests", "run", "group", "train")
    assert head.run_id == sink.id
    assert list(head.tags) == ["maml", "mine"]
    config = items(head.config.update)
    assert config["algo"] == {"name": "maml", "inner_lr": 0.5}
    metrics = {
        record.metric.glob_name or record.metric.name: record.metric for record in found if record.HasField("metric")
    }
    assert all(metrics[f"{split}/*"].step_metric == "step" for split in ("train", "val", "test"))
    history = [items(record.history.item) for record in found if record.HasField("history")]
    assert {"step": 10, "train/loss": 1.5, "train/accuracy": 0.25}.items() <= history[0].items()
    assert {"step": 20, "val/loss": 1.0, "val/accuracy": 0.5}.items() <= history[1].items()
    summary: dict[str, Any] = {}
    for record in found:
        if record.HasField("summary"):
            summary |= items(record.summary.update)
    assert {"status": "finished", "best_step": 20, "val/best_accuracy": 0.5}.items() <= summary.items()
    assert {"test/accuracy": 0.625, "test/accuracy_ci95": 0.125, "test/n_tasks": 8}.items() <= summary.items()
    assert next(record.exit.exit_code for record in found if record.HasField("exit")) == 0


def test_two_runs_in_one_process_are_two_wandb_runs(tmp_path: Path) -> None:
    ids = []
    for name in ("a", "b"):
        sink = WandbSink(info(tmp_path / name, name), **OPTIONS)
        sink.log(1, "train", {"loss": 1.0})
        sink.finish({"status": "finished"}, 0)
        ids.append(sink.id)
        head = next(record.run for record in records(tmp_path / name) if record.HasField("run"))
        assert head.display_name == name
    assert ids[0] != ids[1]


def test_a_run_that_never_finished_does_not_swallow_the_next_one(tmp_path: Path) -> None:
    first, second = (WandbSink(info(tmp_path / name, name), **OPTIONS) for name in "ab")
    second.finish({"status": "finished"}, 0)
    assert first.id != second.id


def test_a_resumed_run_keeps_its_wandb_id_and_a_failed_one_its_exit_code(tmp_path: Path) -> None:
    sink = WandbSink(info(tmp_path / "r", id="abc123"), **OPTIONS)
    sink.finish({"status": "failed"}, 1)
    found = records(tmp_path / "r")
    assert sink.id == "abc123"
    assert next(record.exit.exit_code for record in found if record.HasField("exit")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}])
def test_without_a_key_or_a_server_the_run_goes_on_offline_and_says_how_to_upload(
    tmp_path: Path, cache: Path, environment: dict[str, str]
) -> None:
    online = {"WANDB_MODE": None, "HOME": str(tmp_path), "NETRC": str(tmp_path / "none")} | environment
    wandb = ["logger=wandb", "logger.init_timeout=2", "hydra.run.dir=r"]
    code, out, error = metarun(*TINY, *wandb, cwd=tmp_path, cache=cache, **online)
    assert code == 0, out + error
    assert "wandb sync r/wandb/offline-run-*" in out
    assert ("W&B cannot be reached" in out) == bool(environment)
    assert any(record.HasField("history") for record in records(tmp_path / "r"))


@pytest.mark.slow
def test_each_job_of_a_multirun_is_a_wandb_run_of_one_group(tmp_path: Path, cache: Path) -> None:
    assert metarun("-m", *TINY, "logger=wandb", "seed=0,1", cwd=tmp_path, cache=cache)[0] == 0
    folders = sorted(path.parent for path in tmp_path.glob("outputs/sweeps/*/*/results.json"))
    heads = [record.run for folder in folders for record in records(folder) if record.HasField("run")]
    ids = {head.run_id: head.run_group for head in heads}
    assert len(ids) == 2
    (sweep,) = tmp_path.glob("outputs/sweeps/*")
    assert set(ids.values()) == {sweep.name}
    compared = records(sweep)  # and the comparison is one more
    (head,) = [record.run for record in compared if record.HasField("run")]
    assert (head.run_group, head.job_type, head.run_id) == (sweep.name, "comparison", f"comparison-{min(ids)}")
    history = [items(record.history.item) for record in compared if record.HasField("history")]
    kinds = {name: value for row in history for name, value in row.items() if name.endswith("_type")}
    assert kinds == {"comparison/_type": "table-file", "figures/_type": "image-file", "report/_type": "html-file"}
    (page,) = sweep.glob("wandb/offline-run-*/files/media/html/report*.html")
    assert page.read_bytes() == (sweep / "comparison.html").read_bytes()
    (table,) = sweep.glob("wandb/offline-run-*/files/media/table/*.json")
    found = json.loads(table.read_text())
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["data"]]
    means = [results_of(folder)["test"]["accuracy"]["mean"] for folder in folders]
    assert [row["mean"] for row in rows] == [pytest.approx(sum(means) / 2)]


@pytest.mark.slow
def test_wandb_own_reader_finds_everything_in_a_run_of_the_command(tmp_path: Path, cache: Path) -> None:
    assert metarun(*TINY, "logger=wandb", "hydra.run.dir=r", cwd=tmp_path, cache=cache, WANDB_MODE="offline")[0] == 0
    records(tmp_path / "r")
    (file,) = tmp_path.glob("r/wandb/offline-run-*/*.wandb")

    def inspect(*options: str) -> str:
        typed = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *options, str(file)]
        return subprocess.run(typed, capture_output=True, text=True, check=True, timeout=60).stdout

    found, results = json.loads(inspect("--summary")), results_of(tmp_path / "r")
    assert found["exit_code"] == 0
    config = found["config"]
    assert (config["algo"]["name"], config["algo"]["inner_lr"], config["data"]["name"]) == ("maml", 0.4, "glyphs")
    assert (config["seed"], config["optim"]["schedule"]["name"]) == (0, "cosine")
    assert "metarun" in (file.parent / "files" / "output.log").read_text()
    assert not [key for key, value in found["config"].items() if str(cache) in str(value)]  # no folder of this machine
    assert found["summary"]["test/accuracy"] == pytest.approx(results["test"]["accuracy"]["mean"])
    assert found["summary"]["test/n_tasks"] == results["test"]["accuracy"]["n_tasks"]
    rows = [json.loads(line)["history"]["item"] for line in inspect().splitlines() if '"type":"history"' in line]
    assert [row["step"] for row in rows if "val/accuracy" in row] == [2, 4]
    for name in ("episodes", "curves"):
        (shown,) = (file.parent / "files" / "media" / "images").glob(f"{name}_*.png")
        assert shown.read_bytes() == (tmp_path / "r" / f"{name}.png").read_bytes()


def test_list_has_the_command_that_uploads_what_was_not_uploaded(tmp_path: Path) -> None:
    for name in ("s/a", "s/b", "t u"):
        finished(tmp_path / name, [0.5] * 4)
        (tmp_path / name / "wandb" / "offline-run-1-x").mkdir(parents=True)
        (tmp_path / name / "wandb" / "offline-run-1-x" / "run-x.wandb").touch()
    sync = [f"wandb sync {tmp_path}/s/*/wandb/offline-run-*", f"wandb sync '{tmp_path}/t u'/wandb/offline-run-*"]
    assert list_uploads({run.folder: run.state for run in find_runs([tmp_path])}) == sync
    for file in tmp_path.glob("s/*/wandb/*/*.wandb"):
        file.with_name("run-x.wandb.synced").touch()
    assert list_uploads({run.folder: run.state for run in find_runs([tmp_path])}) == sync[1:]


def test_tensorboard_files_hold_the_metrics(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sink = TensorBoardSink(info(tmp_path / "r"))
    sink.log(10, "val", {"accuracy": 0.5})
    sink.finish({}, 0)
    events = EventAccumulator(str(tmp_path / "r" / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("val/accuracy")] == [(10, 0.5)]


def test_tensorboard_has_settings_and_test_scores_to_sort_runs_by(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG, parse_session_start_info_plugin_data

    for results in ({}, {"test": {"accuracy": {"mean": 0.75}}}):
        folder = tmp_path / f"r{len(results)}"
        config = {"algo": "maml", "algo.inner_lr": 0.4, "run.steps": 3, "tags": ["a"], "notes": None}
        sink = TensorBoardSink(replace(info(folder), config=config))
        sink.log(3, "test", {"accuracy": 0.75})
        sink.finish(results, 0)
        events = EventAccumulator(str(folder / "tensorboard"))
        events.Reload()
        assert len(events.Scalars("test/accuracy")) == 1
        told = events.summary_metadata.get(SESSION_START_INFO_TAG)
        assert bool(told) == bool(results)  # a run that failed has no scores
        if told:
            started = parse_session_start_info_plugin_data(told.plugin_data.content)
            kept = {name: value.string_value or value.number_value for name, value in started.hparams.items()}
            assert kept == {"algo": "maml", "algo.inner_lr": 0.4, "run.steps": 3, "tags": '["a"]', "notes": "null"}


def test_tensorboard_shows_each_step_of_a_resumed_run_once(tmp_path: Path) -> None:
    """Killed at step 30 with a checkpoint at 20, nothing of which but step 30 had reached the disk."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sink = TensorBoardSink(info(tmp_path / "r"))
    sink.log(30, "train", {"loss": 9.0})
    sink.finish({}, 1)
    time.sleep(1.1)  # files are named by the second
    kept = [{"step": step, "split": "train", "loss": float(step)} for step in (10, 20)]
    sink = TensorBoardSink(info(tmp_path / "r", logged=kept))
    sink.log(30, "train", {"loss": 30.0})
    sink.finish({}, 0)
    events = EventAccumulator(str(tmp_path / "r" / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(10, 10), (20, 20), (30, 30)]


def test_json_lines_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = JsonLines(path, 0)
    lines.log(1, "train", {"loss": 1.0})
    kept, _ = lines.flush()
    lines.log(2, "train", {"loss": 2.0})
    lines.close()
    again = JsonLines(path, kept)
    again.log(2, "train", {"loss": 3.0})
    again.close()
    assert [json.loads(line)["loss"] for line in path.read_text().splitlines()] == [1.0, 3.0]


def test_settings_are_nested_and_a_choice_is_the_name_of_its_group() -> None:
    config = {"algo.inner_lr": 0.1, "data.train.n_way": 60, "seed": 0, "algo": "maml", "optim/schedule": "cosine"}
    assert nest(config | {"experiment": "x", "data": "glyphs"}) == {
        "algo": {"name": "maml", "inner_lr": 0.1},
        "data": {"name": "glyphs", "train": {"n_way": 60}},
        "optim": {"schedule": {"name": "cosine"}},
        "seed": 0,
        "experiment": "x",
    }


def test_of_scores_that_are_all_the_same_one_is_told() -> None:
    assert drop_equal({"loss": 0.5, "mse": 0.5, "mse@0": 2.0, "mse@10": 0.5}) == {"mse": 0.5, "mse@0": 2.0}
    assert drop_equal({"loss": 0.5, "accuracy": 0.4}) == {"loss": 0.5, "accuracy": 0.4}
    assert drop_equal({"loss": 0.5}) == {"loss": 0.5}


def test_a_failed_run_has_its_error_name_and_notes_in_wandb_and_a_finished_one_its_model(tmp_path: Path) -> None:
    for name, more in (("bad", {}), ("good", {"log_model": True, "name": "mine"})):
        folder = finished(tmp_path / name, [0.5] * 4)
        (folder / "run.log").write_text("what it said")
        sink = WandbSink(info(folder, name, notes="a sentence"), **OPTIONS, **more)
        failed = {"status": "failed", "error": "Diverged: loss is nan"}
        sink.finish(failed if name == "bad" else RESULTS, int(name == "bad"))
    bad, good = records(tmp_path / "bad"), records(tmp_path / "good")
    summary = {k: v for record in bad if record.HasField("summary") for k, v in items(record.summary.update).items()}
    assert (summary["status"], summary["error"]) == ("failed", "Diverged: loss is nan")
    heads = [next(record.run for record in found if record.HasField("run")) for found in (bad, good)]
    assert [head.display_name for head in heads] == ["bad", "mine"]
    assert [head.notes for head in heads] == ["a sentence"] * 2
    assert not [record for record in bad if record.HasField("artifact")]
    (artifact,) = [record.artifact for record in good if record.HasField("artifact")]
    assert (artifact.type, sorted(artifact.aliases)) == ("model", ["best", "latest"])
    assert {"test_tasks.npz", "results.json"} <= {entry.path for entry in artifact.manifest.contents}
    (shown,) = (tmp_path / "good").glob("wandb/offline-run-*/files/output.log")
    assert shown.read_text() == "what it said"


def test_a_log_that_cannot_be_kept_does_not_leave_the_run_open_in_wandb(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = WandbSink(info(tmp_path / "r"), **OPTIONS)
    (tmp_path / "r" / "run.log").write_text("step 1")
    (Path(sink.run.dir) / "output.log").mkdir(parents=True)  # no file can be written there
    sink.finish(RESULTS, 0)
    assert next(record.exit.exit_code for record in records(tmp_path / "r") if record.HasField("exit")) == 0
    assert "W&B does not have the run's log or weights" in caplog.text


def test_the_jobs_of_a_sweep_are_told_apart_by_name(tmp_path: Path) -> None:
    hydra = {"hydra": {"overrides": {"task": ["algo=maml", "run.steps=4", "optim.lr=0.1,0.01"]}}}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump(hydra))
    assert find_own(tmp_path / "job", ["algo=maml", "run.steps=4", "optim.lr=0.1", "seed=1"]) == ["optim.lr=0.1"]


def test_scores_of_later_tests_are_named_by_what_was_tested() -> None:
    test = {"data": "cub", "n_way": 5, "k_shot": 1, "bn": "support", "test": {"accuracy": {"mean": 0.5, "ci95": 0.1}}}
    assert list_tests([test]) == {"eval/cub/5w1s/support/accuracy": 0.5, "eval/cub/5w1s/support/accuracy_ci95": 0.1}
    test |= {"data": "quadratics", "n_way": None, "k_shot": None, "bn": "none"}
    assert list(list_tests([test])) == ["eval/quadratics/none/accuracy", "eval/quadratics/none/accuracy_ci95"]


def test_cells_of_a_table_are_numbers_where_they_can_be_and_nothing_where_they_are_empty() -> None:
    assert [wandb_sink._parse_number(word) for word in ("0.5", "1e-3", "maml", "")] == [0.5, 0.001, "maml", None]
