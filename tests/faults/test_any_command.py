"""A few of what may be typed; scripts/faults.py types more, METARUN_FAULTS=1 some of it here."""

from __future__ import annotations

import re
from pathlib import Path

import any_command
import pytest
from conftest import campaign
from test_kills import assert_held


def test_an_override_of_any_setting_is_taken_or_refused_in_one_message_before_anything_is_written(root: Path) -> None:
    assert_held(
        *any_command.draw_many(4, any_command.overrides(), lambda drawn: any_command.try_override(root, *drawn))
    )


def test_so_are_any_arguments_of_the_other_commands(root: Path) -> None:
    assert_held(
        *any_command.draw_many(3, any_command.arguments(), lambda drawn: any_command.try_arguments(root, drawn))
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["it's", "-dash", "a=b", "new\nline"])
def test_every_command_that_is_printed_works_when_pasted_whatever_the_folder_s_name(root: Path, name: str) -> None:
    assert_held(any_command.try_place(root, name))


@pytest.mark.slow
def test_so_does_every_command_that_is_printed_of_images_and_sweeps_there(root: Path) -> None:
    assert_held(any_command.try_paths(root, "it's $x (y)"))


@pytest.mark.slow
def test_more_of_all_that(root: Path) -> None:
    assert_held(
        *any_command.draw_many(30, any_command.overrides(), lambda drawn: any_command.try_override(root, *drawn))
    )
    assert_held(
        *any_command.draw_many(15, any_command.arguments(), lambda drawn: any_command.try_arguments(root, drawn))
    )


@campaign
def test_much_of_all_that(root: Path) -> None:
    assert_held(*any_command.type_all(root, 50))


def test_the_kinds_of_fault_name_tests_that_there_are() -> None:
    tests = Path(__file__).parents[1]
    named = re.findall(r"`(test_\w+)(\.py)?`", Path(__file__).with_name("KINDS.md").read_text())
    defined = "".join(file.read_text() for file in tests.rglob("test_*.py"))
    lacking = [
        name for name, file in named if not ((tests / f"{name}.py").exists() if file else f"def {name}(" in defined)
    ]
    assert (len(named) > 60, lacking) == (True, [])
