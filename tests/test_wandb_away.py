"""W&B where it is away, comes back, or is told something strange: a run ends as it would have without it."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import TINY, lines_of, metarun, results_of, start, wait_for_step
from run_folders import finished
from test_sinks import OPTIONS, info, items, parsed, records
from wandb_server import WandbServer, wandb_server

from metarun.core.errors import ConfigError
from metarun.report.runs import find_runs
from metarun.run.tracking import wandb_environment, wandb_sink
from metarun.run.tracking.guarded import GuardedSink
from metarun.run.tracking.sink import NoSink
from metarun.run.tracking.uploads import list_uploads
from metarun.run.tracking.wandb_sink import WandbSink
from metarun.settings.build import build_logger

WANDB = [word for word in TINY if word != "logger=none"]


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with wandb_server() as found:
        yield found


def sync(command: str, server: WandbServer, cwd: Path) -> None:
    """What a person does who pastes a printed command that uploads."""
    environment = {**os.environ, **{name: value for name, value in server.environment.items() if value}}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "WANDB_MODE": "online"}
    done = subprocess.run(["bash", "-c", command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def rows_of(server: WandbServer, id: str) -> list[tuple[str, int]]:
    """Split and step of each row, in the order of their arrival."""
    return [split_and_step(row) for row in server.runs[id] if "step" in row]


def split_and_step(row: dict[str, Any]) -> tuple[str, int]:
    (split,) = {name.partition("/")[0] for name in row if name.endswith("/loss")}
    return split, row["step"]


@pytest.mark.slow
def test_a_run_whose_server_hangs_at_the_end_says_its_score_first_and_ends_soon_with_a_command_that_uploads(
    tmp_path: Path, cache: Path, server: WandbServer
) -> None:
    """The server answers the start alone. What it missed is uploaded by the printed command, and by that of list."""
    server.hangs_after = "UpsertBucket"
    started = time.monotonic()
    typed = [*WANDB, "logger.finish_timeout=2", "hydra.run.dir=a run"]
    code, out, error = metarun(*typed, cwd=tmp_path, cache=cache, **server.environment)
    assert code == 0, out + error
    assert time.monotonic() - started < 60
    results = results_of(tmp_path / "a run")
    assert (results["status"], rows_of(server, results["wandb_id"])) == ("finished", [])
    said = "W&B does not have all of the run; to upload the rest: "
    (line,) = [line for line in out.splitlines() if said in line]
    assert out.index("test accuracy") < out.index("sending to W&B") < out.index(line)
    command = line.partition(said)[2]
    listed = metarun("list", ".", cwd=tmp_path, cache=cache)[1]
    assert "wandb sync --no-skip-online 'a run'/wandb/run-*" in (command, *listed.splitlines())
    assert command in listed
    server.hangs, server.hangs_after = False, ""
    sync(command, server, tmp_path)
    lines = lines_of(tmp_path / "a run")
    assert rows_of(server, results["wandb_id"]) == [(line["split"], line["step"]) for line in lines]
    assert "wandb sync" not in metarun("list", ".", cwd=tmp_path, cache=cache)[1]


@pytest.mark.slow
def test_a_server_that_refuses_is_not_waited_for(tmp_path: Path, cache: Path) -> None:
    """In no job of a sweep: a wait of 1,000 seconds would be seen."""
    environment = {"WANDB_MODE": None, "WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    typed = ["-m", *WANDB, "run.steps=1", "logger.init_timeout=1000", "seed=0,1"]
    code, out, error = metarun(*typed, cwd=tmp_path, cache=cache, **environment)
    assert code == 0, out + error
    for log in tmp_path.glob("outputs/sweeps/*/*/run.log"):
        assert "W&B cannot be reached (127.0.0.1:9: Connection refused): logging offline" in log.read_text()
    sweep = next(tmp_path.glob("outputs/sweeps/*"))
    commands = [line for line in metarun("list", cwd=tmp_path, cache=cache)[1].splitlines() if "wandb sync" in line]
    where = sweep.relative_to(tmp_path)
    assert commands == [f"wandb sync {where}/wandb/offline-run-*", f"wandb sync {where}/*/wandb/offline-run-*"]


@pytest.mark.slow
def test_scores_of_later_tests_go_to_the_run_that_was_tested(tmp_path: Path, cache: Path, server: WandbServer) -> None:
    """To the server, and without a key into a file that uploads to the same run."""
    assert metarun(*WANDB, "hydra.run.dir=r", cwd=tmp_path, cache=cache, **server.environment)[0] == 0
    id = results_of(tmp_path / "r")["wandb_id"]
    tested = ["eval", "r", "run.test_tasks=4", "data.n_query=2", "bn=support", "--wandb"]
    code, out, error = metarun(*tested, "data.k_shot=2", cwd=tmp_path, cache=cache, **server.environment)
    assert code == 0, out + error
    assert "told W&B: " in out
    assert server.summaries[id].keys() >= {"eval/glyphs/5w2s/support/accuracy", "eval/glyphs/5w2s/support/loss_ci95"}
    without = {"WANDB_MODE": None, "WANDB_API_KEY": None, "HOME": str(tmp_path)}
    code, out, error = metarun(*tested, "data.k_shot=3", cwd=tmp_path, cache=cache, **without)
    assert code == 0, out + error
    (command,) = re.findall(r"W&B is offline; to upload: (.*)", out)
    sync(command, server, tmp_path)
    assert list(server.runs) == [id]
    assert "eval/glyphs/5w3s/support/accuracy" in server.summaries[id]


@pytest.mark.slow
def test_a_run_that_is_killed_and_resumed_is_one_run_of_wandb_without_rows_that_come_twice(
    tmp_path: Path, cache: Path, server: WandbServer
) -> None:
    """Killed before its first checkpoint, so that it begins anew; then after one, between two of them."""
    typed = [*WANDB, "run.steps=39", "run.checkpoint_every=13", "run.val_every=5", "hydra.run.dir=r"]
    process = start(*typed, cwd=tmp_path, cache=cache, **server.environment)
    for step in (4, 17):
        wait_for_step(tmp_path / "r", step, process)
        process.kill()
        process.communicate()
        wait_until_told(server)
        process = start("resume", "r", cwd=tmp_path, cache=cache, **server.environment)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, out + error
    assert list(server.runs) == [results_of(tmp_path / "r")["wandb_id"]]
    (id,) = server.runs
    assert rows_of(server, id) == [(line["split"], line["step"]) for line in lines_of(tmp_path / "r")]
    best = [row["val/best_accuracy"] for row in server.runs[id] if "val/best_accuracy" in row]
    found = [line["accuracy"] for line in lines_of(tmp_path / "r") if line["split"] == "val"]
    assert best == [max(found[: i + 1]) for i in range(len(found))]
    assert "wandb sync" not in metarun("list", ".", cwd=tmp_path, cache=cache)[1]


def wait_until_told(server: WandbServer) -> None:
    """W&B's own process outlives a killed run for as long as it has something to send."""
    before = -1
    while before != (now := sum(map(len, server.runs.values()))):
        before = now
        time.sleep(1.5)


@pytest.mark.slow  # 9 s; the test above goes the same way with a server
def test_an_offline_run_that_is_killed_and_resumed_has_no_rows_twice_either(tmp_path: Path, cache: Path) -> None:
    typed = [*WANDB, "run.steps=39", "run.checkpoint_every=1000", "run.val_every=5", "hydra.run.dir=r"]
    process = start(*typed, cwd=tmp_path, cache=cache, WANDB_MODE="offline")
    wait_for_step(tmp_path / "r", 4, process)
    process.kill()
    process.communicate()
    assert metarun("resume", "r", cwd=tmp_path, cache=cache, WANDB_MODE="offline")[0] == 0
    records(tmp_path / "r")
    found = list(parsed(tmp_path / "r"))
    assert {record.run.run_id for record in found if record.HasField("run")} == {results_of(tmp_path / "r")["wandb_id"]}
    rows = [items(record.history.item) for record in found if record.HasField("history")]
    seen = [split_and_step(row) for row in rows if "step" in row]
    assert seen == [(line["split"], line["step"]) for line in lines_of(tmp_path / "r")]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WANDB_SILENT", "", "WANDB_SILENT= is ignored: Input should be a valid boolean"),
        ("WANDB_QUIET", "", "WANDB_QUIET= is ignored: Input should be a valid boolean"),
        ("WANDB_MODE", "ofline", "WANDB_MODE=ofline is none of online, offline, disabled: logging offline"),
        ("WANDB_PROJECT", "a/b", "WANDB_PROJECT=a/b is ignored: Invalid project name 'a/b'"),
        ("WANDB_BASE_URL", "not a url", "WANDB_BASE_URL=not a url is ignored: Input should be a valid URL"),
        ("WANDB_TAGS", "", "WANDB_TAGS= is ignored: Value error, Tag at index 0 is empty"),
        ("WANDB_RUN_ID", "a/b", "WANDB_RUN_ID=a/b is ignored: Run ID cannot contain"),
        ("WANDB_HTTP_TIMEOUT", "soon", "WANDB_HTTP_TIMEOUT=soon is ignored: Input should be a valid number"),
        ("WANDB_SERVICE", "gone", "WANDB_SERVICE=gone is ignored: Failed to parse WANDB_SERVICE='gone'"),
        ("WANDB_DIR", "/nowhere", "WANDB_DIR is ignored: W&B's files lie in the run's folder"),
        ("WANDB_RESUME", "must", "WANDB_RESUME is ignored: a resumed run goes on in W&B by itself"),
    ],
)
def test_a_variable_of_wandb_that_is_wrong_or_without_effect_is_named_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    sink = WandbSink(info(tmp_path / "r"), **OPTIONS | {"mode": "auto"})
    sink.log(1, "train", {"loss": 1.0})
    sink.finish({"status": "finished"}, 0)
    assert len([text for text in caplog.messages if name in text]) == 1
    assert any(text.startswith(said) for text in caplog.messages)
    assert any(record.HasField("history") for record in records(tmp_path / "r"))


@pytest.mark.parametrize("by", ["setting", "environment"])
def test_a_run_that_is_disabled_in_wandb_ends_without_a_word_about_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, by: str
) -> None:
    caplog.set_level(logging.INFO)
    if by == "environment":
        monkeypatch.setenv("WANDB_MODE", "disabled")
    mode = "disabled" if by == "setting" else "auto"
    sink = WandbSink(info(tmp_path / "r"), **OPTIONS | {"mode": mode, "log_model": True})
    (tmp_path / "r" / "run.log").write_text("what it said")
    sink.log(1, "train", {"loss": 1.0})
    sink.log(2, "val", {"loss": 1.0})
    sink.finish({"status": "finished"}, 0)
    assert (sink.notes, caplog.messages) == ([], [])
    assert not list((tmp_path / "r").rglob("*.wandb"))


def test_the_mode_may_be_written_with_capitals(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "Offline")
    wandb_environment.drop_wrong_variables()
    assert (os.environ["WANDB_MODE"], caplog.messages) == ("offline", [])


@pytest.mark.parametrize("several", [False, True])
def test_names_of_the_environment_are_obeyed_and_those_of_one_run_not_in_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, several: bool
) -> None:
    named = {
        "NAME": "my name",
        "RUN_GROUP": "my group",
        "JOB_TYPE": "my job",
        "RUN_ID": "myid",
        "PROJECT": "my project",
    }
    for name, value in (named | {"TAGS": "one,two"}).items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    sink = WandbSink(info(tmp_path / "r", several=several), **OPTIONS | {"project": None, "tags": None})
    sink.finish({"status": "finished"}, 0)
    head = next(record.run for record in records(tmp_path / "r") if record.HasField("run"))
    assert (head.run_group, head.job_type, head.project) == ("my group", "my job", "my project")
    assert list(head.tags) == ["maml", "one", "two"]
    assert (head.display_name, head.run_id == "myid") == (("run", False) if several else ("my name", True))
    ignored = [text for text in caplog.messages if text.endswith("is ignored: each run of a sweep has its own")]
    assert len(ignored) == 2 * several


def test_what_was_meant_for_a_server_whose_address_is_wrong_goes_to_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B's own server would get it, as where nothing is said."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:99999")
    monkeypatch.setattr(wandb_sink, "find_obstacle", lambda url, seconds: pytest.fail(f"{url} was asked"))
    sink = WandbSink(info(tmp_path / "r"), **OPTIONS | {"mode": "online"})
    assert "W&B is offline" in sink.notes[0]
    sink.finish({"status": "finished"}, 0)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a/b c", b""])
def test_a_damaged_file_of_the_run_s_id_gives_it_another_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r" / "wandb").mkdir(parents=True)
    (tmp_path / "r" / "wandb" / "run_id").write_bytes(content)
    sink = WandbSink(info(tmp_path / "r"), **OPTIONS)
    sink.finish({"status": "finished"}, 0)
    assert (tmp_path / "r" / "wandb" / "run_id").read_text() == sink.id


@pytest.mark.parametrize("word", ["logger.project=a/b", f"logger.tags=[{'t' * 65}]"])
def test_a_run_that_wandb_would_not_take_is_refused_before_anything_is_written(
    tmp_path: Path, cache: Path, word: str
) -> None:
    small = [one for one in TINY if not one.startswith("logger")]
    code, out, error = metarun(*small, "logger=wandb", word, "hydra.run.dir=r", cwd=tmp_path, cache=cache)
    assert (code, word.split("=")[0] in error, (tmp_path / "r").exists()) == (2, True, False), out


def test_a_project_that_is_typed_wrongly_is_wrong_input(tmp_path: Path) -> None:
    node = {"_target_": "metarun.run.tracking.wandb_sink.WandbSink", **OPTIONS, "project": "a/b"}
    with pytest.raises(ConfigError, match=r"^logger\.project=a/b.*: Invalid project name 'a/b'"):
        build_logger(node, info(tmp_path / "r"))
    assert not (tmp_path / "r" / "wandb").exists()


class Failing(NoSink):
    """Fails at one of the things that it is asked for."""

    shows = True
    notes = ("a note",)

    def __init__(self, at: str) -> None:
        self.at, self.calls = at, list[str]()
        self._do("start")

    def _do(self, what: str) -> None:
        self.calls.append(what)
        if what == self.at:
            raise RuntimeError(f"no {what}\nand more")

    def log(self, *_: Any) -> None:
        self._do("log")

    def show(self, *_: Any) -> None:
        self._do("show")

    def finish(self, *_: Any) -> None:
        self._do("finish")


@pytest.mark.parametrize("at", ["start", "log", "show", "finish"])
def test_a_logger_that_fails_is_named_and_asked_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, at: str
) -> None:
    caplog.set_level(logging.INFO)
    guarded = GuardedSink(lambda: Failing(at), info(tmp_path / "r"))
    inner = guarded.sink
    for _ in range(2):
        guarded.log(1, "train", {})
        guarded.show("curves", tmp_path)
    guarded.finish({}, 0)
    (told,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    what = "cannot start" if at == "start" else "failed"
    assert told.message == f"the logger {what}, and the run goes on without it: RuntimeError: no {at}"
    assert any(record.exc_info for record in caplog.records)
    assert isinstance(guarded.sink, NoSink)
    assert not isinstance(guarded.sink, Failing)
    if isinstance(inner, Failing):
        assert inner.calls[-1] == at


def test_wrong_settings_of_a_logger_and_ctrl_c_are_not_kept_back(tmp_path: Path) -> None:
    def wrong() -> NoSink:
        raise ConfigError("logger.mode=sometimes")

    def stopped() -> NoSink:
        raise KeyboardInterrupt

    with pytest.raises(ConfigError):
        GuardedSink(wrong, info(tmp_path / "r"))
    with pytest.raises(KeyboardInterrupt):
        GuardedSink(stopped, info(tmp_path / "r"))


def test_list_has_commands_for_all_that_was_not_uploaded(tmp_path: Path) -> None:
    """Offline runs; online ones whose upload broke off; a sweep's comparison; and runs uploaded while they went on."""

    def leave(folder: Path, kind: str, synced: int | None = None) -> Path:
        file = folder / "wandb" / f"{kind}-1-x" / "run-x.wandb"
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, (1000, 1000))
        if synced:
            file.with_name("run-x.wandb.synced").touch()
            os.utime(file.with_name("run-x.wandb.synced"), (synced, synced))
        return file

    for name in ("s w/a", "s w/b", "s w/c", "d/e"):
        finished(tmp_path / name, [0.5] * 4)
    leave(tmp_path / "s w" / "a", "offline-run", 995)
    leave(tmp_path / "s w" / "b", "run")
    leave(tmp_path / "s w" / "c", "run")
    leave(tmp_path / "s w", "offline-run")
    leave(tmp_path / "d" / "e", "offline-run", 900)
    commands = list_uploads({run.folder: run.state for run in find_runs([tmp_path])})
    assert [shlex.split(command)[:2] for command in commands] == [["wandb", "sync"]] * 3
    where = shlex.quote(str(tmp_path / "s w"))
    assert sorted(commands) == sorted(
        [
            f"wandb sync {where}/wandb/offline-run-*",
            f"wandb sync --no-skip-online {where}/*/wandb/run-*",
            f"wandb sync --no-skip-online --no-skip-synced {tmp_path}/d/e/wandb/offline-run-1-x",
        ]
    )
    assert json.loads((tmp_path / "d" / "e" / "results.json").read_text())["status"] == "finished"
