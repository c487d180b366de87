"""A few of the campaign's damaged files; scripts/faults.py makes them all."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import damages
import pytest
import torch
from conftest import campaign
from small_run import do
from test_kills import assert_held

from metarun.core.results_file import SEAL, read_results_file, seal

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("command", "file", "damage"),
    [
        ("resume", "r/.hydra/hydra.yaml", "emptied"),
        ("resume", "r/.hydra/hydra.yaml", "missing"),
        ("resume", "r/.hydra/config.yaml", "cut"),
        ("resume", "r/checkpoints/last.pt", "changed in a bit"),
        ("eval", "r/checkpoints/best.pt", "cut"),
        ("eval", "r/results.json", "changed in a bit"),
        ("show", "r/.hydra/hydra.yaml", "missing"),
        ("show", "r/results.json", "emptied"),
        ("resume", "r/metrics.jsonl", "changed in a bit"),
        ("show", "r/metrics.jsonl", "changed in a bit"),
        ("list", "r/metrics.jsonl", "missing"),
        ("compare", "r/metrics.jsonl", "cut"),
        ("compare", "r/test_tasks.npz", "changed in a bit"),
        ("compare", "r/test_tasks.npz", "emptied"),
        ("compare", "r/results.json", "cut"),
    ],
)
def test_a_damaged_file_is_named_or_changes_no_number(root: Path, command: str, file: str, damage: str) -> None:
    assert_held(damages.damage_one(root, command, file, damage, 0))


@pytest.mark.parametrize("damage", ["cut", "emptied", "changed in a bit"])
def test_a_damaged_test_of_a_run_is_named_by_show(root: Path, damage: str) -> None:
    """Whichever bit it is."""
    damages.make_runs(root)
    for kind in ("json", "npz"):
        name = next(name for name in damages.list_files(root, "show") if re.search(rf"evals/.*\.{kind}", name))
        for seed in range(2 if damage == "changed in a bit" else 1):
            trial = damages.damage_one(root, "show", name, damage, seed)
            assert_held(trial)
            assert trial.outcome == "said"


def test_a_number_that_was_changed_in_the_results_is_noticed_by_every_command(root: Path) -> None:
    def double(place: Path) -> None:
        path = place / "r" / "results.json"
        results = json.loads(path.read_text())
        results["test"]["accuracy"]["mean"] *= 1.5
        path.write_text(json.dumps(results))

    damages.make_runs(root)
    for command in ("eval", "show", "list", "compare"):
        said = damages.say(root / "sound", root / "changed", damages.COMMANDS[command], double)[1]
        assert "r/results.json was changed after it was written" in said.replace("\n", "")


@pytest.mark.parametrize("file", ["test_tasks.npz", "metrics.jsonl", "checkpoints/best.pt"])
def test_whole_files_of_another_run_are_not_taken_for_the_run_s_own(root: Path, file: str) -> None:
    """Each is sound by itself, and its numbers are another seed's."""

    def swap(place: Path) -> None:
        shutil.copy(place / "other" / file, place / "r" / file)

    damages.make_runs(root)
    commands = ["eval"] if file.endswith(".pt") else ["show", "list", "compare"]
    for command in commands:
        said = damages.say(root / "sound", root / "swapped", damages.COMMANDS[command], swap)[1]
        assert Path(file).name in said.replace("\n", "")
        assert "changed after it was written" in said or "was not trained with the settings" in said, said


@pytest.mark.slow
def test_a_sound_run_is_never_called_damaged(root: Path) -> None:
    damages.make_runs(root)
    for command in damages.COMMANDS:
        said = damages.say(root / "sound", root / "kept", damages.COMMANDS[command])[1]
        assert not re.search("is damaged|was changed|is missing|cannot be read", said), said


def test_weights_of_another_machine_with_the_same_settings_are_not_taken_for_the_run_s_own(root: Path) -> None:
    """The checkpoint is sound and says the same settings; its weights are not those that were tested."""

    def train_on(place: Path) -> None:
        path = place / "r" / "checkpoints" / "best.pt"
        state = torch.load(path, weights_only=True)
        state["learner"] = {name: value * 1.01 for name, value in state["learner"].items()}
        torch.save(state, path)

    damages.make_runs(root)
    code, said = damages.say(root / "sound", root / "trained", damages.COMMANDS["eval"], train_on)
    assert code == 2
    assert "r/checkpoints/best.pt was changed after it was written" in said.replace("\n", "")


def test_results_that_are_sealed_are_read_as_they_were_written(tmp_path: Path) -> None:
    content = {"status": "finished", "seconds": {"total": 0.1 + 0.2}, "test": None, "error": "±"}
    path = tmp_path / "results.json"
    path.write_text(json.dumps(seal(content), indent=1))
    found, problem = read_results_file(path)
    assert (problem, found) == (None, content | {SEAL: found[SEAL]})
    assert seal(found) == found
    path.write_text(path.read_text().replace("finished", "failed"))
    assert read_results_file(path) == ({}, f"{path} was changed after it was written")


@campaign
@pytest.mark.parametrize("command", damages.COMMANDS)
def test_every_file_in_every_way(root: Path, command: str) -> None:
    assert_held(*damages.damage_each(root, commands=[command]))
    assert do(root / "sound", "list", ".")[0] == 0
