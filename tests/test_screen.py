"""What the program shows: nothing of it ends a run, and commands can be pasted."""

from __future__ import annotations

import io
import logging
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from commands import TINY, metarun, results_of, start
from same_process import using

from metarun.app.commands.resume import resume
from metarun.app.jobs import pictures
from metarun.app.messages import open_log
from metarun.cli import command
from metarun.core.command import join, keep_last, quote
from metarun.core.errors import ConfigError
from metarun.core.run_folder import RunFolder
from metarun.core.screen import Facts, Screen
from metarun.core.secrets import mask, mask_all
from metarun.core.streams import LastingStream, lasting_streams
from metarun.settings.reopen import reopen


def closed_pipe() -> int:
    read, write = os.pipe()
    os.close(read)
    return write


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def lost_terminal() -> int:
    """A terminal whose window is gone: what is written there is an error of input and output."""
    master, terminal = pty.openpty()
    os.close(master)
    with pytest.raises(OSError, match="Input/output error"):
        os.write(terminal, b"anybody?")
    return terminal


@pytest.mark.slow
@pytest.mark.parametrize("screen", [closed_pipe, full_disk, lost_terminal])
def test_a_run_that_nobody_can_read_goes_on_to_its_end(tmp_path: Path, cache: Path, screen: Callable[[], int]) -> None:
    """Both of its streams fail at the first word."""
    out = screen()
    process = start(*TINY, "hydra.run.dir=r", cwd=tmp_path, cache=cache, out=out)
    os.close(out)
    assert process.wait(60) == 0
    assert results_of(tmp_path / "r")["status"] == "finished"
    assert "Traceback" not in (tmp_path / "r" / "run.log").read_text()


@pytest.mark.parametrize(
    ("typed", "code"), [(["list", "."], 0), (["--help"], 0), (["algo=mamml"], 2), (["-m", "seed=a"], 2)]
)
def test_a_command_that_nobody_reads_ends_as_it_would_have_and_one_whose_words_have_no_room_with_an_error(
    tmp_path: Path, cache: Path, typed: list[str], code: int
) -> None:
    """What was asked for, as a table in a file, is not whole then."""
    for screen, ends in ((closed_pipe, code), (full_disk, code or 1)):
        out = screen()
        process = start(*typed, cwd=tmp_path, cache=cache, out=out)
        os.close(out)
        assert process.wait(60) == ends


def test_of_a_table_that_is_not_whole_standard_error_says_so() -> None:
    program = "from metarun.cli import main; main()"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", program, "--version"], stdout=full, stderr=-1, text=True)
    assert (done.returncode, done.stderr) == (1, "metarun: what was printed is not whole: No space left on device\n")


@pytest.mark.slow
def test_a_sweep_that_nobody_can_read_runs_all_its_jobs(tmp_path: Path, cache: Path) -> None:
    out = closed_pipe()
    process = start("-m", *TINY, "seed=0,1", cwd=tmp_path, cache=cache, out=out)
    os.close(out)
    assert process.wait(60) == 0
    folders = [path.parent for path in tmp_path.glob("outputs/sweeps/*/*/results.json")]
    assert [results_of(folder)["status"] for folder in folders] == ["finished"] * 2


def test_python_says_nothing_either_when_it_flushes_at_the_end() -> None:
    """Its own last flush of a broken pipe exits with 120; here the reader is gone before anything is printed."""
    program = "from metarun.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "--version"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert (process.stderr.read(), process.wait(60)) == ("", 0)


@pytest.mark.parametrize(
    ("picture", "drawn_by", "words"),
    [
        ("episodes.png", "draw_tasks", TINY),
        ("the method's own picture", "save_picture", ["algo=rl2", "data=bandits", "algo.hidden=4"]),
    ],
)
def test_a_picture_that_cannot_be_drawn_ends_no_run(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    picture: str,
    drawn_by: str,
    words: list[str],
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no font\nof this name")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pictures, drawn_by, fail)
    small = ["run.steps=2", "run.meta_batch_size=2", "run.val_tasks=2", "run.test_tasks=4", "logger=none", "threads=1"]
    with using(capsys, cache, 120) as use:
        code, out, errors = use(*words, *small, "hydra.run.dir=mine")
    assert code == 0, errors
    assert f"{picture} cannot be drawn, and the run goes on without it: RuntimeError: no font\n" in out + errors
    results = results_of(tmp_path / "mine")
    assert (results["status"], results["error"], results["test"]["loss"]["n_tasks"]) == ("finished", None, 4)
    assert "of this name" in (tmp_path / "mine" / "run.log").read_text()


def test_a_screen_without_our_letters_shows_others(tmp_path: Path) -> None:
    """As on a server whose locale is C."""
    program = tmp_path / "program.py"
    program.write_text(
        "from metarun.core.streams import lasting_streams\nwith lasting_streams():\n    print('1 ± 2 µs, ü')"
    )
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    assert (
        subprocess.run([sys.executable, program], env=env, capture_output=True, check=True).stdout == b"1 +- 2 us, ?\n"
    )


def test_a_stream_falls_silent_at_an_error_and_a_slow_reader_is_not_one() -> None:
    class Slow(io.StringIO):
        def write(self, text: str) -> int:
            if text == "wait":
                raise BlockingIOError
            return super().write(text)

    slow = Slow()
    stream = LastingStream(slow)
    for text in ("a", "wait", "b"):
        stream.write(text)
    stream.writelines(["c", "d"])
    assert slow.getvalue() == "abcd"


def test_a_reader_that_left_costs_no_open_file() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as file:
        stream = LastingStream(file)
        opened = len(os.listdir("/dev/fd"))
        for _ in range(3):
            stream.write("text\n")
            stream.flush()
        assert isinstance(stream.lost, BrokenPipeError)
        assert len(os.listdir("/dev/fd")) == opened


def test_streams_are_as_before_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with suppress(KeyError), lasting_streams():
        assert isinstance(sys.stdout, LastingStream)
        with lasting_streams():
            print("seen")
        raise KeyError
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "seen\n"


def shown(width: int, show: Callable[[Screen], None]) -> str:
    screen = Screen()
    screen.width, screen.file = width, io.StringIO()
    show(screen)
    return screen.file.getvalue()


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("[glyphs,omniglot]", "[glyphs,omniglot]"),
        ("[/bold] [red]x", "[/bold] [red]x"),
        (":smile: [link=x]", ":smile: [link=x]"),
        ("a\x1b[31mred\x1b]0;title\x07\x9b2Jb", "a[31mred]0;title2Jb"),
        ("up\x08\x08\rdown\u202egnp", "updowngnp"),
        ("bytes\udcff", "bytes"),
    ],
)
def test_names_reach_the_screen_as_they_stand_without_what_steers_it(name: str, seen: str) -> None:
    facts = Facts()
    facts.add("fact", name)
    facts.add_command("command", name)
    for show in (lambda screen: screen.print(name), lambda screen: screen.say(name), facts.show):
        out = shown(80, show)
        assert seen in out
        assert out.replace("\n", "").isprintable()


def test_a_command_stands_in_one_line_on_a_narrow_screen() -> None:
    words = ["metarun", *(f"data.sources=[glyphs,omniglot-{n}]" for n in range(9)), "data.path=my images"]
    facts = Facts()
    facts.add("a label", "some words " * 20)
    facts.add_command("next", join(words), "three are better")
    *_, last = shown(40, facts.show).splitlines()
    label, *typed = shlex.split(last, comments=True)
    assert (label, typed) == ("next", words)


@pytest.mark.parametrize(
    "word", ["plain", "my images", "it's", "[a,b]", "$HOME", "a\nb", "\x1b[31m'\\", "jürgen", "\udcff", ""]
)
def test_a_quoted_word_is_what_a_shell_makes_of_it(word: str) -> None:
    typed = quote(word)
    assert typed.isprintable()
    made = subprocess.run(["bash", "-c", f"printf %s {typed}"], capture_output=True).stdout
    assert os.fsdecode(made) == word


def test_a_path_that_begins_with_a_dash_is_no_flag_and_a_flag_stays_one() -> None:
    assert join(["metarun", "show", Path("-a b"), "--settings"]) == "metarun show './-a b' --settings"


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (["seed=1", "algo=maml", "seed=2"], ["algo=maml", "seed=2"]),
        (["+x=1", "x=2"], ["+x=2"]),
        (["++x=1", "+x=2"], ["+x=2"]),
        (["backbone=mlp", "~backbone"], ["~backbone"]),
    ],
)
def test_of_several_values_of_a_key_the_last_is_kept(typed: list[str], kept: list[str]) -> None:
    assert keep_last(typed) == kept


@pytest.mark.slow
def test_the_next_command_of_a_run_works_when_pasted(tmp_path: Path, cache: Path) -> None:
    """With a folder of YAML files of one's own, lists in brackets and blanks; and again after a rerun."""
    (tmp_path / "my settings" / "algo").mkdir(parents=True)
    shipped = (Path(__file__).parents[1] / "conf" / "algo" / "maml.yaml").read_text()
    (tmp_path / "my settings" / "algo" / "mine.yaml").write_text(shipped)
    typed = ["--config-dir", "my settings", *TINY, "algo=mine", "algo.report_steps=[0, 1]", "hydra.run.dir=a run"]
    code, out, error = metarun(*typed, cwd=tmp_path, cache=cache, COLUMNS="60")
    assert code == 0, out + error
    for seed in (1, 2):
        (line,) = [line for line in out.splitlines() if line.startswith("next ")]
        words = shlex.split(line, comments=True)[1:]
        assert words[:2] == ["metarun", "--config-dir=my settings"]
        assert words.count(f"seed={seed}") == sum(word.startswith("seed=") for word in words) == 1
        code, out, error = metarun(*words[1:], "--cfg", "job", cwd=tmp_path, cache=cache)
        assert code == 0, out + error
        assert f"seed: {seed}\n" in out
        again = ["rerun", "--trust", "a run", f"seed={seed}", f"hydra.run.dir=r{seed}"]
        code, out, error = metarun(*again, cwd=tmp_path, cache=cache, COLUMNS="60")
        assert code == 0, out + error


def test_the_command_that_goes_on_with_a_run_works_when_pasted(tmp_path: Path, cache: Path) -> None:
    """The folder's name has a blank and an escape code, which is no colour on the screen."""
    folder = tmp_path / "my \x1b[31mruns"
    folder.mkdir()
    typed = [*TINY, "optim=sgd", "optim.lr=1e30", "run.steps=50", f"hydra.run.dir={tmp_path}/r"]
    assert metarun(*typed, cwd=tmp_path, cache=cache)[0] == 1
    (tmp_path / "r").rename(folder / "r")
    shows = metarun("show", folder / "r", cwd=tmp_path, cache=cache)[1]
    _, out, _ = metarun("resume", folder / "r", cwd=tmp_path, cache=cache)
    for text in (shows, out):
        assert "\x1b" not in text
        command = next(line[line.index("metarun resume ") :] for line in text.splitlines() if "metarun resume " in line)
        made = subprocess.run(["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True).stdout
        assert (tmp_path / made.splitlines()[2]).resolve() == folder / "r"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("mysql://me:secret@host/db", "mysql://me:***@host/db"),
        ("see https://me:se:cret@host:80/x, and http://a:b@c", "see https://me:***@host:80/x, and http://a:***@c"),
        ("there is no folder https:/me:secret@host/x", "there is no folder https:/me:***@host/x"),
        ("https://:secret@host", "https://:***@host"),
        ("https://host/x?a=1&token=secret&b=2", "https://host/x?a=1&token=***&b=2"),
        ("https://host/x?X-Amz-Signature=secret", "https://host/x?X-Amz-Signature=***"),
        ("'https://host/?api_key=secret'", "'https://host/?api_key=***'"),
        ("https://me@host/a:b@c", "https://me@host/a:b@c"),
        ("data.path=my:images@home token=1", "data.path=my:images@home token=1"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
    ],
)
def test_passwords_and_tokens_in_addresses_are_masked(text: str, masked: str) -> None:
    assert mask(text) == masked
    assert mask_all({"a": [text, 1]}) == {"a": [masked, 1]}


@pytest.mark.slow
def test_a_password_that_was_typed_is_neither_shown_nor_in_results_log_and_pages(tmp_path: Path, cache: Path) -> None:
    """In an address that a setting holds; .hydra has the settings as they are, to go on from."""
    source = "paper={value: 0.5, ci95: null, source: 'https://me:hush1@host/?token=hush2'}"
    typed = ["-m", *TINY, source, "seed=0,1", "run.steps=1"]
    code, out, error = metarun(*typed, cwd=tmp_path, cache=cache)
    assert code == 0, out + error
    assert "me:***@host/?token=***" in out
    kinds = (".json", ".log", ".html", ".csv")
    written = [path for path in tmp_path.glob("outputs/sweeps/*/**/*") if path.suffix in kinds]
    assert {path.name for path in written} >= {"results.json", "run.log", "comparison.html", "comparison.csv"}
    for text in (out, error, *(path.read_text() for path in written)):
        assert "hush" not in text


@pytest.mark.slow
def test_a_password_that_was_typed_stands_nowhere_in_the_folder_of_a_run_or_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["metarun"])
    monkeypatch.setenv("METARUN_CACHE", str(cache))
    small = ["data=sinusoid", "run.steps=1", "run.meta_batch_size=2", "run.val_tasks=2", "run.test_tasks=2"]
    words = [
        *small,
        "threads=1",
        "logger=none",
        "paper={value: 1, ci95: null, source: 'https://me:hunter2@host/?token=hunter3'}",
    ]
    assert command([*words, "hydra.run.dir=one"]) == 0
    assert command(["-m", *words, "seed=0,1", "hydra.sweep.dir=many"]) == 0
    assert command(["-m", *words, "seed=0,1", "hydra.sweep.dir=many"]) == 0
    said = "".join(capfd.readouterr())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"multirun.yaml", "config.yaml", "hydra.yaml", "overrides.yaml"} <= {path.name for path in files}
    assert [path for path in files if b"hunter" in path.read_bytes()] == []
    assert "hunter" not in said
    for name in ("eval", "show"):
        assert command([name, "one"]) == 0


def test_a_password_that_a_run_needs_is_asked_for_again(tmp_path: Path) -> None:
    folder = shutil.copytree(Path(__file__).parent / "data" / "runs" / "interrupted", tmp_path / "run")
    file = RunFolder(folder).settings
    file.write_text(file.read_text().replace("logger:\n", "logger:\n  address: https://me:***@host\n"))
    with pytest.raises(
        ConfigError, match=r"the password in logger.address is not kept with a run: add logger.address=..."
    ):
        resume(folder, [])
    assert reopen(folder).change({"logger.address": "https://me:x@host"}).find_masked() == []


def test_a_line_of_the_log_says_when_how_grave_and_where(tmp_path: Path) -> None:
    file, log = open_log(tmp_path / "run.log"), logging.getLogger("metarun.some.place")
    log.addHandler(file)
    try:
        log.warning("too few tasks")
    finally:
        log.removeHandler(file)
        file.close()
    line = (tmp_path / "run.log").read_text()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING metarun.some.place: too few tasks\n", line)
