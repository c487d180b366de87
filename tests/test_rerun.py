"""`metarun rerun`: an earlier run's settings again, and what is no longer as it was."""

from __future__ import annotations

import json
import shlex
import shutil
from importlib import metadata
from pathlib import Path

import pytest
from commands import TINY, metarun, results_of
from run_folders import forget_hash

from metarun.app.commands.rerun import _hold_values, _list_keys, describe_code, make_arguments
from metarun.core.identity import TOLD
from metarun.core.results_file import seal
from metarun.run.results import read_versions

OWN = """\
_target_: metarun.algos.gradient.maml.MAML
inner_lr: 0.1
inner_steps: 2
test_inner_steps: 2
report_steps: []
first_order: true
engine: auto
task_chunk: 0
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    assert metarun(*TINY, "hydra.run.dir=r", cwd=folder, cache=cache)[0] == 0
    return folder / "r"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """The folder `r` of a finished run, to be changed."""
    return shutil.copytree(finished, tmp_path / "r")


def edit(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text()
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    path.write_text(text)


@pytest.mark.slow
def test_a_rerun_gives_the_same_numbers_in_a_folder_of_its_own(tmp_path: Path, cache: Path) -> None:
    assert metarun(*TINY, "algo=fomaml", "seed=3", "hydra.run.dir=r", cwd=tmp_path, cache=cache)[0] == 0
    code, out, error = metarun("rerun", "r", "hydra.run.dir=again", cwd=tmp_path, cache=cache)
    assert code == 0, out + error
    assert results_of(tmp_path / "again")["test"] == results_of(tmp_path / "r")["test"]
    assert "code: commit" not in out
    code, out, _ = metarun("rerun", "r", "seed=4", "hydra.run.dir=other", cwd=tmp_path, cache=cache)
    assert code == 0
    assert (results_of(tmp_path / "other")["seed"], results_of(tmp_path / "other")["algo"]) == (4, "fomaml")


@pytest.mark.slow
def test_a_default_that_has_changed_since_keeps_its_value_of_then(run: Path) -> None:
    forget_hash(run)
    edit(
        run / ".hydra" / "config.yaml",
        ("inner_lr: 0.4", "inner_lr: 0.25"),
        ("eps: 1.0e-08", "eps: 1.0e-06\n  forgotten: 3"),
    )
    arguments, notes = make_arguments(run, [])
    assert arguments[-2:] == ["algo.inner_lr=0.25", "optim.eps=1e-06"]
    assert "algo.inner_lr=0.25 as then; the default is 0.4 now" in notes
    assert "optim.forgotten=3 then; there is no such setting now" in notes
    assert "optim.forgotten=3" not in " ".join(arguments)
    arguments, notes = make_arguments(run, ["algo=anil"])  # another algorithm has its own defaults
    assert not any("inner_lr" in text for text in [*arguments, *notes])


@pytest.mark.parametrize(
    ("chosen", "held"),
    [("optim/schedule=cosine", ["lr"]), ("+optim.schedule.gamma=0.5", ["lr", "eta_min"]), ("optim=sgd", []),
     ("~optim.schedule.gamma", ["lr", "eta_min"]), ("optim.lr=3", ["eta_min", "gamma"]),
     ("seed=1", ["lr", "eta_min", "gamma"])],
)  # fmt: skip
def test_what_is_chosen_anew_with_a_rerun_is_not_held_to_what_it_was(chosen: str, held: list[str]) -> None:
    """Neither is what tells where a run lies or how it is shown."""
    keys = {"lr": "optim.lr", "eta_min": "optim.schedule.eta_min", "gamma": "optim.schedule.gamma"}
    then = dict.fromkeys(keys.values(), 2) | dict.fromkeys(TOLD, 2)
    words, notes = _hold_values(then, dict.fromkeys(then, 1), _list_keys([chosen]))
    assert sorted(words) == sorted(f"{keys[name]}=2" for name in held)
    assert len(notes) == len(held)


@pytest.mark.slow
def test_a_run_of_ones_own_algorithm_is_found_again(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "my settings" / "algo").mkdir(parents=True)
    (tmp_path / "my settings" / "algo" / "own.yaml").write_text(OWN)
    typed = ["--config-dir", "my settings", *TINY, "algo=own", "hydra.run.dir=r"]
    code, out, error = metarun(*typed, cwd=tmp_path, cache=cache)
    assert code == 0, out + error
    code, out, error = metarun("rerun", "r", "--trust", "hydra.run.dir=again", cwd=tmp_path, cache=cache)
    assert code == 0, out + error
    assert results_of(tmp_path / "again")["test"] == results_of(tmp_path / "r")["test"]
    shown = shlex.split(out.splitlines()[0])
    assert shown[0] == "metarun"
    assert shown[-1] == "hydra.run.dir=again"


def test_what_differs_in_the_code_is_said() -> None:
    versions = read_versions()
    then = {"git": {"commit": "0" * 40, "dirty": True}, "versions": versions | {"torch": "1.0"}}
    said = describe_code(then)
    assert f"torch: 1.0 then, {versions['torch']} now" in said
    assert "code: with uncommitted changes then" in said
    assert sum(line.startswith("code: commit 0000000000 then, ") for line in said) == 1


def test_the_same_code_has_nothing_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = {"commit": "1" * 40, "dirty": False}
    monkeypatch.setattr("metarun.app.commands.rerun.read_git_state", lambda: clean)
    assert describe_code({"git": clean, "versions": read_versions()}) == []
    assert describe_code({"git": None, "versions": read_versions()}) == [
        "code: an installed copy then, commit 1111111111 now"
    ]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["nosuch"], "nosuch is not the folder of a run: it has no .hydra/config.yaml"),
        (["r", "algo.inner_lrr=1"], "there is no setting algo.inner_lrr; did you mean algo.inner_lr?"),
        ([], "rerun: the following arguments are required: RUN"),
    ],
)
def test_wrong_input_ends_with_2(run: Path, cache: Path, typed: list[str], message: str) -> None:
    code, _, error = metarun("rerun", *typed, cwd=run.parent, cache=cache)
    assert code == 2
    assert message in error


def test_a_choice_that_is_gone_is_named(run: Path, cache: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    results["overrides"] = ["algo=gone", *results["overrides"]]
    (run / "results.json").write_text(json.dumps(seal(results)))
    code, _, error = metarun("rerun", "r", cwd=run.parent, cache=cache)
    assert code == 2
    assert "the run's settings no longer compose: " in error
    assert "gone" in error


@pytest.mark.parametrize("installed", [True, False])
def test_the_version_of_a_checkout_that_is_not_installed_is_unknown(
    monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    def version(name: str) -> str:
        if name == "metarun" and not installed:
            raise metadata.PackageNotFoundError(name)
        return f"that of {name}"

    monkeypatch.setattr(metadata, "version", version)
    found = read_versions()
    assert found["metarun"] == ("that of metarun" if installed else "unknown")
    assert found["torch"] == "that of torch"
