"""What a run may be called by."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from rich.console import Console
from run_folders import finished

from metarun.cli import command
from metarun.core.errors import ConfigError
from metarun.report.config_dirs import find_config_dirs
from metarun.report.listing import make_run_table
from metarun.report.references import find_folder, name_shortly
from metarun.report.runs import find_runs

DAY = Path("outputs/2026-11-26")
RUNS = {  # by what `list` calls them, in the order in which they began
    "70a8": DAY / "10-00-00-maml-glyphs-5w1s-transductive-s0-70a8",
    "best": Path("outputs/best"),
    "fce037bc": Path("outputs/sweeps/seed-844821c7/maml-glyphs-5w1s-transductive-s0-fce037bc"),
    "11223344": Path("outputs/sweeps/seed-844821c7/maml-glyphs-5w1s-transductive-s1-11223344"),
    "70b9": DAY / "12-00-00-anil-glyphs-5w1s-transductive-s0-70b9",
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with five runs, each begun an hour after the one before."""
    monkeypatch.chdir(tmp_path)
    for hour, folder in enumerate(RUNS.values()):
        finished(tmp_path / folder, [0.4, 0.5], seed=hour)
        os.utime(folder / ".hydra" / "config.yaml", (3600 * (hour + 1),) * 2)
    return tmp_path


def test_each_run_has_a_short_name_and_is_found_by_it() -> None:
    assert name_shortly(list(RUNS.values())) == {folder: name for name, folder in RUNS.items()}
    for name, folder in RUNS.items():
        assert find_folder(name) == folder


@pytest.mark.parametrize(
    ("typed", "folder"),
    [
        ("0a8", "70a8"),  # any end of the name, if there is one such run
        ("s0-70a8", "70a8"),
        ("anil-glyphs-5w1s-transductive-s0-70b9/", "70b9"),
        ("seed-844821c7/maml-glyphs-5w1s-transductive-s1-11223344", "11223344"),
        ("outputs/best", "best"),
        ("last", "70b9"),
    ],
)
def test_a_run_is_found_by_the_end_of_its_name_and_the_last_by_its_start(typed: str, folder: str) -> None:
    assert find_folder(typed) == RUNS[folder]


def test_a_whole_name_comes_before_names_that_end_so(here: Path) -> None:
    """maml-x is a run, and fomaml-x another; aml-x calls both."""
    for name in ("maml-x", "fomaml-x"):
        finished(here / "outputs" / name, [0.4, 0.5])
    assert find_folder("maml-x") == Path("outputs/maml-x")
    with pytest.raises(ConfigError, match="2 runs are called aml-x"):
        find_folder("aml-x")


def test_a_run_that_is_resumed_does_not_become_the_last() -> None:
    os.utime(RUNS["70a8"] / "results.json")
    assert find_folder("last") == RUNS["70b9"]


def test_where_several_runs_are_asked_for_the_last_is_the_whole_sweep_and_a_sweep_has_a_name(here: Path) -> None:
    os.utime(RUNS["11223344"] / ".hydra" / "config.yaml")
    sweep = RUNS["11223344"].parent
    for typed in ("last", "844821c7", "seed-844821c7"):
        assert find_folder(typed, several=True) == sweep
    assert find_folder("last") == RUNS["11223344"]


def test_a_folder_of_that_name_comes_first(here: Path) -> None:
    (here / "last").mkdir()
    assert find_folder("last") == Path("last")


def test_a_name_of_several_is_refused_with_all_of_them() -> None:
    finished(Path("outputs/19"), [0.4, 0.5])
    with pytest.raises(ConfigError) as error:
        find_folder("9")
    first, second = sorted(["outputs/19", str(RUNS["70b9"])])
    assert str(error.value) == f"2 runs are called 9: {first}, {second}. Type more of the end of one's name"


def test_a_name_of_nobody_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("show", "resume", "eval", "export", "rerun"):
        assert command([word, "bests"]) == 2
        assert "bests is not the folder of a run, and no run under outputs is called so; did you mean best?" in (
            capsys.readouterr().err
        )


def test_without_any_run_there_is_no_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(ConfigError, match="there is no last run: there is none under outputs"):
        find_folder("last")


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_list_has_no_line_wider_than_the_screen_and_up_to_120_columns_a_line_a_run(width: int) -> None:
    runs = find_runs([Path("outputs")])
    screen = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    screen.print(make_run_table(runs, 1e6, width))
    lines = [line for line in screen.export_text().splitlines() if line.strip()]
    assert all(len(line.rstrip()) <= width for line in lines)
    if width < 200:
        assert len(lines) == 2 + len(RUNS)
    text = "\n".join(lines)
    assert all(name in text for name in RUNS)


def test_list_has_the_newest_last(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert command(["list"]) == 0
    ids = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "glyphs" in line]
    assert ids == list(RUNS)


def test_folders_of_yamls_below_this_one_have_short_names(here: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere, folder = tmp_path_factory.mktemp("elsewhere"), RUNS["best"]
    sources = [{"path": str(path), "provider": "command-line"} for path in (here / "mine" / "conf", elsewhere)]
    sources.append({"path": str(here / "shipped"), "provider": "main"})
    (folder / ".hydra" / "hydra.yaml").write_text(json.dumps({"hydra": {"runtime": {"config_sources": sources}}}))
    assert find_config_dirs(folder) == ["--config-dir=mine/conf", f"--config-dir={elsewhere}"]
