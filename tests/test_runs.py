"""Finding, listing and showing runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from run_folders import finished, settings, write_metrics, write_settings

from metarun.app.jobs.claim import Claim
from metarun.cli import command
from metarun.report.listing import describe_progress, format_age
from metarun.report.runs import Run, find_runs, read_run

SCORES = [0.4, 0.5, 0.6]


@pytest.fixture(autouse=True)
def _columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")


@pytest.fixture
def five(tmp_path: Path) -> Path:
    """A run in each state but running, and one that never started."""
    finished(tmp_path / "day" / "done", SCORES, seed=3)
    finished(tmp_path / "day" / "failed", SCORES, status="failed", error="Diverged: loss is nan", test=None, steps=17)
    finished(tmp_path / "day" / "stopped", SCORES, status="interrupted", error="SIGTERM", test=None, steps=20)
    write_metrics(write_settings(tmp_path / "day" / "dead", settings()), 30)
    write_settings(tmp_path / "day" / "refused", settings())
    return tmp_path


def read(folder: Path) -> Run:
    run = read_run(folder)
    assert run
    return run


def alone_in(folder: Path) -> Claim:
    """The folder held as a run holds it."""
    return Claim(folder, Console(quiet=True), lambda: None)


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = command([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_list_tells_the_five_states_apart(five: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`dead` is running while a process holds it, as job.py does, and has died once nobody does."""
    dead = five / "day" / "dead"
    with alone_in(dead):
        _, out, _ = said(capsys, "list", five)
    rows = [line.split() for line in out.splitlines() if line.rstrip().endswith(tuple(map(str, five.glob("day/*"))))]
    states = {row[0]: row[1] for row in rows if Path(row[-1]).name == row[0]}
    assert states == {"done": "finished", "failed": "failed", "stopped": "interrupted", "dead": "running"}
    assert f"1 with settings alone, never started: {five / 'day' / 'refused'}" in out
    assert read(dead).state == "died"


def test_the_lock_of_a_killed_process_holds_nothing(five: Path) -> None:
    dead = five / "day" / "dead"
    hold = "import sys, time; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire()"
    wait = "print('held', flush=True); time.sleep(60)"
    command_line = [sys.executable, "-c", f"{hold}; {wait}", str(dead / ".hydra" / "lock")]
    process = subprocess.Popen(command_line, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    assert read(dead).state == "running"
    process.kill()
    process.wait()
    process.stdout.close()
    assert read(dead).state == "died"


def test_a_resumed_run_is_running_whatever_its_old_results_say(five: Path) -> None:
    with alone_in(five / "day" / "stopped"):
        assert read(five / "day" / "stopped").state == "running"
    assert read(five / "day" / "stopped").state == "interrupted"


def test_looking_at_a_run_leaves_its_lock_free_and_makes_none(five: Path) -> None:
    find_runs([five])
    assert not list(five.rglob("lock"))
    with alone_in(five / "day" / "dead"):
        pass
    find_runs([five])
    with alone_in(five / "day" / "dead"):
        pass


def test_list_says_what_ran_how_well_how_far_and_how_large(five: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = five / "day" / "done"
    (folder / "run.log").write_bytes(b"x" * 3_000_000)
    for name in ("results.json", "metrics.jsonl", "run.log", ".hydra/config.yaml"):
        os.utime(folder / name, (time.time() - 7300,) * 2)
    _, out, _ = said(capsys, "list", five)
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines() if "bn=" in line}
    assert lines["done"] == (
        f"finished maml glyphs 5-way 1-shot conv4 bn=transductive seed 3 test 50.00 % 40/40 2 h 3 MB {folder}"
    )
    assert "val 40.00 % 17/40" in lines["failed"]  # the last line of metrics.jsonl says 0.2 + 40/200
    assert "MAML Glyphs" in lines["dead"]  # without results.json and Hydra's choices: the classes
    assert "val 35.00 % 30/40" in lines["dead"]


def test_hydras_choices_name_what_a_dead_run_was(five: Path) -> None:
    choices = {"algo": "fomaml", "data": "glyphs", "optim": "adam", "logger": "none", "hydra/launcher": "basic"}
    hydra = {"hydra": {"runtime": {"choices": choices}, "overrides": {"task": ["algo=fomaml"]}}}
    (five / "day" / "dead" / ".hydra" / "hydra.yaml").write_text(json.dumps(hydra))
    run = read(five / "day" / "dead")
    assert (run.value("algo"), run.value("optim"), run.overrides) == ("fomaml", "adam", ("algo=fomaml",))
    assert run.value("hydra.launcher") is None


def test_references_between_settings_are_followed_and_resolvers_left(five: Path) -> None:
    run = read(five / "day" / "done")
    assert run.value("run.steps") == 40  # ${data.steps}
    assert run.value("data.train.k_shot") == 1  # ${data.k_shot}
    assert run.value("paths.data").startswith("${oc.env:")
    assert (run.value("optim"), run.value("optim.lr")) == ("Adam", 0.001)


def test_each_run_is_found_once_and_none_within_a_run_or_elsewhere(five: Path) -> None:
    (five / "day" / "done" / "wandb" / "inner").mkdir(parents=True)
    (five / "day" / "done" / "wandb" / "inner" / "results.json").write_text('{"status": "finished"}')
    (five / "other").mkdir()
    (five / "other" / "results.json").write_text('{"score": 1}')
    (five / "cut").mkdir()
    (five / "cut" / "results.json").write_text('{"status": "fini')
    found = [run.folder.name for run in find_runs([five, five / "day", five / "day" / "done"])]
    assert found == ["dead", "done", "failed", "refused", "stopped"]


def test_a_run_that_is_named_by_two_paths_is_found_once(five: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(five)
    (five / "link").symlink_to(five / "day")
    found = [run.folder.name for run in find_runs([five / "day", Path("day"), Path("link")])]
    assert found == ["dead", "done", "failed", "refused", "stopped"]


def test_a_run_that_goes_on_is_as_far_as_its_last_line_says(five: Path) -> None:
    stopped = five / "day" / "stopped"
    assert describe_progress(read(stopped)) == "20/40"
    with alone_in(stopped):
        assert describe_progress(read(stopped)) == "40/40"


def test_a_line_cut_off_by_a_kill_is_passed_over(five: Path) -> None:
    path = five / "day" / "dead" / "metrics.jsonl"
    whole = list(read(path.parent).lines())
    path.write_text(path.read_text() + '{"step": 31, "spl')
    assert list(read(path.parent).lines()) == whole


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "1 h"), (200000, "2 d")]
)
def test_age_is_in_the_largest_whole_unit(seconds: float, text: str) -> None:
    assert format_age(seconds) == text


def test_show_gives_the_end_table_the_files_and_both_curves(five: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Train and validation accuracy over steps 10 to 40 lie between 0.25, at step 10 of val, and 0.6."""
    code, out, error = said(capsys, "show", five / "day" / "done")
    assert (code, error) == (0, "")
    assert "maml on glyphs, 5-way 1-shot, conv4, bn=transductive, seed 3" in out
    assert "50.00 % ± 1.00 %" in out
    assert re.search(r"test_tasks\.npz +\d+ B +index and score of every test task", out)
    assert "checkpoints/last.pt" not in out.split("in " + str(five))[1]
    accuracy, loss = out.split("(accuracy %)")[1].split("(loss)")
    for drawing in (accuracy, loss):
        assert "⠤⠤ train" in drawing
        assert "o⠤ val" in drawing
        assert drawing.split("Legend")[0].count("o") == 4  # a point a validation
    ticks = [float(number) for number in re.findall(r"^ *([\d.]+) \|", accuracy, re.M)]
    assert max(ticks) > 57
    assert min(ticks) < 25


def test_show_of_an_unfinished_run_says_how_to_go_on(five: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "show", five / "day" / "failed")
    assert code == 0
    assert "Diverged: loss is nan" in out
    assert f"metarun resume {five / 'day' / 'failed'}" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "{}/dai"], "there is no folder {}/dai; did you mean {}/day?"),
        (["show", "{}/day"], "{}/day is not the folder of a run; it has runs in it: metarun list {}/day"),
        (["show", "{}/day/don"], "there is no folder {}/day/don; did you mean {}/day/done?"),
        (["show"], "show: the following arguments are required: RUN. usage: metarun show [-h] [--settings] RUN"),
        (["resume"], "resume: the following arguments are required: RUN"),
        (
            ["lst"],
            "there is no subcommand lst; did you mean list? (there is compare, data, eval, export, help, list, "
            "predict, replay,",
        ),
    ],
)  # fmt: skip
def test_wrong_input_ends_with_code_2(
    five: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, _, error = said(capsys, *(argument.format(five) for argument in arguments))
    assert code == 2
    assert message.format(*[five] * 2) in error


def test_each_subcommand_has_help_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    for name, word in (("compare", "--baseline"), ("list", "PATH"), ("show", "RUN"), ("resume", "RUN")):
        code, out, _ = said(capsys, name, "--help")
        assert code == 0
        assert f"usage: metarun {name}" in out
        assert word in out


def test_listing_and_showing_need_no_torch(five: Path) -> None:
    for arguments in (["list", str(five)], ["show", str(five / "day" / "done")]):
        call = f"import sys; from metarun.cli import command; code = command({arguments!r})"
        script = f"{call}; sys.exit(code or bool({{'torch', 'hydra', 'scipy.stats'}} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "maml" in done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        "[1]",
        "7",
        '{"step": 2, "loss": 1.0}',
        '{"step": "2", "split": "val"}',
        '{"split": "val"}',
        "\x00",
    ],
)
def test_what_is_no_line_of_metrics_is_passed_over(five: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    path = five / "day" / "done" / "metrics.jsonl"
    whole = list(read(path.parent).lines())
    path.write_text(f"{line}\n{path.read_text()}{line}\n")
    assert list(read(path.parent).lines()) == whole
    assert said(capsys, "show", path.parent)[0] == 0


def test_a_curve_with_numbers_that_are_not_finite_is_drawn_without_them(
    five: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = five / "day" / "done" / "metrics.jsonl"
    odd = [
        f'{{"step": {n}, "split": "val", "accuracy": {value}, "loss": "x"}}\n'
        for n, value in ((50, "NaN"), (60, "Infinity"))
    ]
    path.write_text(path.read_text() + "".join(odd))
    code, out, _ = said(capsys, "show", path.parent)
    assert code == 0
    assert "(accuracy %)" in out
    path.write_text("".join(odd))
    assert said(capsys, "show", path.parent)[0] == 0
