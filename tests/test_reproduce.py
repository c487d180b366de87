"""scripts/reproduce.py: it runs what is missing, goes on with what was begun, and writes numbers beside the papers'."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import lines_of, metarun, results_of, wait_for_step
from conftest import SMALL
from omegaconf import DictConfig
from run_folders import finished, settings, write_metrics, write_settings

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import reproduce
from reproduction.outcomes import Finder, read_outcomes
from reproduction.targets import Target, check_words, choose, compose_target, read_targets

from metarun.core.errors import ConfigError
from metarun.report.runs import read_run
from metarun.settings.conf import CONF

WORDS = ["data=glyphs", "algo=protonet", "backbone.hidden=8", *(word for word in SMALL if word != "device=cpu")]
SMALL_TARGET = {
    "experiment": "quick/omniglot_5w1s",
    "overrides": WORDS,
    "seeds": [0, 1],
    "paper": {"value": 0.4, "plus_minus": None, "over": None, "source": "a paper"},
    "protocol": {"n_query": 1, "bn": "transductive", "test_tasks": None},
}
LONG = [*(word for word in WORDS if not word.startswith(("run.steps", "run.val_every"))), "run.steps=60"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a file of two targets on the same runs, and one of more steps; a table; an experiment's header."""
    targets = {
        "small": SMALL_TARGET,
        "small_loss": SMALL_TARGET | {"score": "loss", "paper": None},
        "long": SMALL_TARGET | {"overrides": LONG, "seeds": [3]},
    }
    (tmp_path / "targets.yaml").write_text(yaml.safe_dump(targets, sort_keys=False))
    (tmp_path / "README.md").write_text("\n".join(["before", *reproduce_marks(), "after", ""]))
    (tmp_path / "quick").mkdir()
    header = "# --- ours, written by scripts/reproduce.py\n# old\n# ---\nrun: 1\n"
    (tmp_path / "quick" / "omniglot_5w1s.yaml").write_text(f"# first\n{header}")
    return tmp_path


def reproduce_marks() -> list[str]:
    return ["<!-- reproduction: written by scripts/reproduce.py -->", "old", "<!-- end of reproduction -->"]


def words_of(place: Path, cache: Path) -> list[str]:
    folders = {
        "targets": "targets.yaml", "results": "kept/r.json", "readme": "README.md", "experiments": ".", "runs": "runs",
    }  # fmt: skip
    return [*(f"--{name}={place / file}" for name, file in folders.items()), f"paths.cache={cache}", "--device=cpu"]


def run_folder(place: Path, name: str, seed: int) -> Path:
    return read_targets(place / "targets.yaml")[name].folder(place / "runs", seed)


@pytest.mark.slow
def test_what_is_missing_is_run_seed_by_seed_and_once_with_the_numbers_of_the_command(
    place: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(place, cache)
    assert reproduce.main(words) == 0
    assert "small: seed 0 missing, seed 1 missing" in capsys.readouterr().out
    assert reproduce.main(["small_loss", "small", "--seeds", "1", *words]) == 0
    assert reproduce.main(["small", *words, "--table"]) == 0
    capsys.readouterr()
    assert reproduce.main(words) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    kept = read_outcomes(place / "kept" / "r.json")
    assert [key[1] for key in kept] == [0, 1]
    for seed, outcome in enumerate(kept.values()):
        score = f"{100 * outcome.test['accuracy']['mean']:.2f} %"
        assert f"seed {seed} done ({score})" in first
        assert f"seed {seed} done (loss {outcome.test['loss']['mean']:.4f})" in second
    assert third == "long: seed 3 missing"
    command = ["+experiment=quick/omniglot_5w1s", *WORDS, f"paths.cache={cache}", "logger=none", "device=cpu"]
    code, _, error = metarun(*command, "seed=1", "hydra.run.dir=plain", cwd=place, cache=cache)
    assert code == 0, error
    again = results_of(place / "plain")
    assert again["test"]["loss"]["mean"] == kept[tuple(command[: len(WORDS) + 1]), 1].test["loss"]["mean"]

    written = (place / "kept" / "r.json").read_bytes()
    before = results_of(run_folder(place, "small", 0))
    assert reproduce.main(["small", "--seeds", "0", *words]) == 0
    assert results_of(run_folder(place, "small", 0)) == before
    (place / "kept" / "r.json").unlink()  # the runs' folders are there yet, and are not run again
    assert reproduce.main(["small", *words]) == 0
    assert (place / "kept" / "r.json").read_bytes() == written
    assert results_of(run_folder(place, "small", 0)) == before


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_ends_with_the_numbers_of_one_that_was_not(place: Path, cache: Path) -> None:
    words, folder = words_of(place, cache), run_folder(place, "long", 3)
    script = [sys.executable, reproduce.__file__, "long", *words]
    process = subprocess.Popen(
        script, cwd=place, env={**os.environ, "METARUN_CACHE": str(cache)}, text=True, stdout=subprocess.PIPE
    )
    wait_for_step(folder, 2, process)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "long, seed 3: missing" in out
    state = reproduce.state_of(read_run(folder))
    assert state == f"interrupted at step {results_of(folder)['saved_step']}"
    assert 2 <= results_of(folder)["saved_step"] < 60
    assert not (place / "kept" / "r.json").exists()
    assert reproduce.main(["long", *words]) == 0
    assert reproduce.state_of(read_run(folder)) == "done"

    assert reproduce.main(["long", *words, f"--runs={place / 'whole'}", f"--results={place / 'whole.json'}"]) == 0
    whole = place / "whole" / folder.relative_to(place / "runs")
    assert lines_of(folder) == lines_of(whole)
    stopped, other = (read_outcomes(place / name) for name in ("kept/r.json", "whole.json"))
    assert [found.test for found in stopped.values()] == [found.test for found in other.values()]


def test_states_of_runs(tmp_path: Path) -> None:
    assert reproduce.state_of(read_run(tmp_path / "none")) == "missing"
    assert reproduce.state_of(read_run(write_settings(tmp_path / "unstarted", settings()))) == "missing"
    killed = write_settings(tmp_path / "killed", settings())
    write_metrics(killed, 20)
    assert reproduce.state_of(read_run(killed)) == "interrupted at step 20"
    for status, step, said in (("failed", 7, "failed at step 7"), ("interrupted", None, "interrupted at step 40")):
        folder = finished(tmp_path / status, [0.5, 0.6], status=status, saved_step=step)
        assert reproduce.state_of(read_run(folder)) == said
    assert reproduce.state_of(read_run(finished(tmp_path / "finished", [0.5, 0.6]))) == "done"


@pytest.mark.slow
def test_runs_made_elsewhere_are_taken_in_by_their_settings(
    place: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One validated more seldom, which is said; one of other steps and an unfinished one, which are left out."""
    command = ["+experiment=quick/omniglot_5w1s", *WORDS, f"paths.cache={cache}", "logger=none", "device=cpu"]
    for name, own in {
        "fits": ["seed=1", "run.val_every=4", "run.eval_batch_size=3", "run.test_tasks=11"],
        "steps": ["run.steps=3"],
    }.items():
        one = [word for word in command if word.partition("=")[0] not in [o.partition("=")[0] for o in own]]
        code, _, error = metarun(*one, *own, f"hydra.run.dir=gpu/{name}", cwd=place, cache=cache)
        assert code == 0, error
    shutil.rmtree(place / "gpu" / "fits" / "checkpoints")
    finished(place / "gpu" / "stopped", [0.5], status="interrupted")
    capsys.readouterr()
    assert reproduce.main([*words_of(place, cache), "--from", str(place / "gpu"), "--table"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{place / 'gpu' / 'fits'}: +experiment=quick/omniglot_5w1s data=glyphs")
    assert said[1].endswith(
        "is not a run of any target; nearest is small: optim.schedule.T_max is 3, not 4, run.steps is 3, not 4"
    )
    assert said[2] == f"{place / 'gpu' / 'stopped'} is interrupted: left out"
    (outcome,) = read_outcomes(place / "kept" / "r.json").values()
    assert outcome.changed == {"run.test_tasks": (11, 12), "run.val_every": (4, 2)}
    assert (outcome.seed, outcome.steps, outcome.bn, outcome.n_query) == (1, 4, "transductive", 3)
    assert outcome.hardware == results_of(place / "gpu" / "fits")["device_name"] != ""
    assert "paths." not in outcome.command
    table = (place / "README.md").read_text()
    assert "3 queries (paper: 1); run.test_tasks=11 (experiment: 12); run.val_every=4 (experiment: 2)" in table
    assert "not known of the paper: test tasks" in table


def test_of_targets_that_fit_a_run_is_of_the_one_with_the_fewest_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper = {"paper": None, "protocol": {}}
    targets = [Target(name, name, **paper) for name in ("seldom", "exact", "steps")]
    apart = {"seldom": {"run.val_every": (4, 2)}, "exact": {}, "steps": {"run.steps": (4, 8)}}
    monkeypatch.setattr(Finder, "_apart", lambda self, run, target: apart[target.name])
    run = read_run(finished(tmp_path / "run", [0.5, 0.7], seed=2))
    outcome = Finder(targets).outcome(run)
    assert outcome.key == (("+experiment=exact",), 2)
    assert (outcome.hardware, outcome.versions, outcome.commit) == ("cpu", {}, None)  # an older run's
    assert Finder(targets).outcome(run, targets[0]).changed == {"run.val_every": (4, 2)}
    with pytest.raises(ConfigError, match=r"is not a run of steps: run\.steps is 4, not 8"):
        Finder(targets).outcome(run, targets[2])


@pytest.mark.slow
def test_a_run_with_other_settings_in_a_targets_place_is_refused(place: Path, cache: Path) -> None:
    command = ["+experiment=quick/omniglot_5w1s", *WORDS, "bn=support", "logger=none", "device=cpu"]
    folder = run_folder(place, "small", 0)
    place_of_run = f"hydra.run.dir='{folder}'"
    code, _, error = metarun(*command, place_of_run, cwd=place, cache=cache)
    assert code == 0, error
    with pytest.raises(ConfigError, match="is not a run of small: bn is support, not transductive"):
        reproduce.main(["small", "--seeds", "0", *words_of(place, cache)])


def test_wrong_words_are_told(place: Path) -> None:
    targets = read_targets(place / "targets.yaml")
    with pytest.raises(ConfigError, match="there is no target smal; did you mean small"):
        choose(["smal"], targets)
    assert [target.name for target in choose(["all"], targets)] == ["small", "small_loss", "long"]
    check_words(["device=cuda", "run.val_every=3", "paths.data=here", "logger.mode=online", "algo.task_chunk=0"])
    for word in ("run.steps=3", "seed=1", "algo.inner_lr=1"):
        with pytest.raises(ConfigError, match=f"{word} would make it another experiment"):
            check_words([word])
    (place / "targets.yaml").write_text("one: {paper: null}")
    with pytest.raises(ConfigError, match=r"target one: .*protocol"):
        read_targets(place / "targets.yaml")


Settings = Callable[..., DictConfig]
TARGETS = read_targets()


def test_every_experiment_is_a_target_with_its_papers_number(full: Settings) -> None:
    files = {file.stem for file in (CONF / "experiment").glob("*.yaml")}
    assert {target.experiment for target in TARGETS.values()} == files
    for name in files:
        target, paper = TARGETS[name], full(f"+experiment={name}").paper
        assert not target.overrides
        ours = target.paper and (target.paper.value, target.paper.plus_minus)
        assert ours == (paper and (paper.value, paper.ci95)), name


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_target_composes_and_says_how_its_paper_tests(target: Any) -> None:
    assert compose_target(target)
    assert set(target.protocol) == {"n_query", "bn", "test_tasks"}
    assert len(target.seeds) >= 3
    assert target.protocol["bn"] in (None, "transductive", "support", "running", "none")
    assert target.paper is None or (target.paper.value > 0 and target.paper.source)


def test_the_committed_tables_are_made_from_the_committed_outcomes(tmp_path: Path) -> None:
    shutil.copy(reproduce.README, tmp_path / "README.md")
    for file in (CONF / "experiment").glob("*.yaml"):
        shutil.copy(file, tmp_path / file.name)
    words = [f"--readme={tmp_path / 'README.md'}", f"--experiments={tmp_path}", f"--runs={tmp_path}", "--table"]
    assert reproduce.main(words) == 0
    assert (tmp_path / "README.md").read_text() == reproduce.README.read_text()
    for file in (CONF / "experiment").glob("*.yaml"):
        assert (tmp_path / file.name).read_text() == file.read_text()


def test_kept_outcomes_are_json_that_a_person_can_read(place: Path, cache: Path) -> None:
    assert reproduce.main(["small", "--seeds", "0", *words_of(place, cache)]) == 0
    (run,) = json.loads((place / "kept" / "r.json").read_text())["runs"]
    results = results_of(run_folder(place, "small", 0))
    assert run["hours"] == pytest.approx(results["seconds"]["total"] / 3600, abs=1e-4)
    assert run["versions"]["torch"] == results["versions"]["torch"]
    assert run["test"]["accuracy"]["mean"] == results["test"]["accuracy"]["mean"]
