"""`metarun --help` and `metarun help NAME`: every group, choice and setting, at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from metarun.app.commands.help import GROUPS, PLUS
from metarun.cli import command
from metarun.settings.conf import CONF
from metarun.settings.explain import describe_choice, find_title, list_choices
from metarun.settings.ranges import find_annotations, find_parameters

CHOICES = list_choices([CONF])
FILES = [(group, file) for group, files in CHOICES.items() for file in files.values()]


@pytest.fixture(autouse=True)
def _columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert command([*words]) == 0
    return capsys.readouterr().out


def test_help_has_40_lines_of_80_columns_and_a_line_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "--help").splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    for group in (*GROUPS, *PLUS):
        assert sum(line.startswith(f"{'+' * (group in PLUS)}{group}=") for line in lines) == 1
    assert said(capsys, "help").splitlines() == lines
    words = "\n".join(lines)
    assert all(word in words for word in ("last", "metarun help NAME", "-sc install=bash", "+debug=fast"))


def test_every_group_that_one_can_choose_from_is_in_the_help() -> None:
    hidden = {"tuned", "hydra/sweeper", "experiment/quick"}  # come by themselves; with search=; with experiment
    assert set(CHOICES) - hidden == {*GROUPS, *PLUS}


@pytest.mark.parametrize("group", CHOICES)
def test_help_of_a_group_lists_its_choices_with_their_meaning(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = " ".join(said(capsys, "help", group).split())
    for name, file in CHOICES[group].items():
        assert f"{name} {' '.join(find_title(file).split()[:3])}" in out


def test_help_of_a_choice_has_its_classes_words_and_each_setting_with_range_and_comment(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = said(capsys, "help", "boil")
    assert "BOIL: MAML that adapts the backbone alone (Oh 2021)" in out
    assert "the opposite of ANIL" in out
    assert "arXiv:2008.08882" in out
    words = " ".join(out.split())
    assert "algo.inner_lr=0.4 a number above 0; of the mean loss" in words
    assert "algo.engine=auto auto, vectorized, learn2learn" in words
    assert said(capsys, "help", "algo=boil") == out
    both = said(capsys, "help", "maml")  # a method, and a space to search
    assert "algo=maml" in both
    assert "search=maml" in both


def test_help_of_a_setting_says_what_it_may_be_what_it_means_and_what_it_is_where(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = said(capsys, "help", "run.patience")
    assert "a whole number from 1 or null" in out
    assert "validations in a row without a better one" in out
    assert "null in run=continual, run=offline" in out
    assert "10.0 in algo=cavia" in said(capsys, "help", "inner_lr")
    assert "initial weights and training tasks" in said(capsys, "help", "seed")


def test_what_nothing_is_called_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["help", "protonett"]) == 2
    assert "nothing is called protonett; did you mean protonet?" in capsys.readouterr().err


@pytest.mark.parametrize("group", ["algo", "data", "backbone", "run"])
def test_the_source_says_the_same_as_the_classes_themselves(group: str) -> None:
    """Each setting that has a readable annotation on the constructor has a range in the help, by the source alone."""
    unsaid = []
    for name, file in CHOICES[group].items():
        target = describe_target(file)
        if not target.startswith("metarun."):
            continue
        known = {key for key in find_parameters(target) if key in find_annotations(target)}
        for one in describe_choice(group, file).settings:
            own = one.key == f"{group}.{one.key.rpartition('.')[2]}"
            if own and one.key.rpartition(".")[2] in known and not one.range and not one.comment and not one.meaning:
                unsaid.append(f"{group}={name}: {one.key}")
    assert not unsaid


def describe_target(file: Path) -> str:
    return next(line.split("_target_:")[1].strip() for line in file.read_text().splitlines() if "_target_:" in line)


def test_help_needs_neither_torch_nor_the_classes() -> None:
    for name in ("--help", "help boil", "help algo", "help inner_lr"):
        code = f"import sys; from metarun.cli import command; code = command({name.split()!r})"
        check = "sys.exit(code or bool({'torch', 'hydra', 'metarun.algos'} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", f"{code}; {check}"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def test_no_line_of_help_is_wider_than_the_screen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert Console().width == 80
    for name in ("algo", "boil", "inner_lr", "run=offline", "experiment"):
        assert max(map(len, said(capsys, "help", name).splitlines())) <= 80


def test_a_group_before_the_name_leaves_the_others_out(capsys: pytest.CaptureFixture[str]) -> None:
    """`none` is a backbone and a logger; a value with a folder in it is no choice of a group."""
    both, one = said(capsys, "help", "none"), said(capsys, "help", "logger=none")
    assert ("backbone=none" in both, "logger=none" in both) == (True, True)
    assert ("backbone=none" in one, "logger=none" in one) == (False, True)


def test_a_setting_inside_another_has_not_the_meaning_of_one_of_the_same_name() -> None:
    """data.options.split says which part of SVHN's files is read, data.split which classes are tested."""
    choice = describe_choice("data", CONF / "data" / "svhn.yaml")
    inner, outer = ({one.key: one for one in choice.settings}.get(key) for key in ("data.options.split", "data.split"))
    assert inner is not None
    assert (inner.meaning, inner.range) == ("", "")
    assert outer is None or outer.meaning
