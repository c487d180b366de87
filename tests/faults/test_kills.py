"""A few of each campaign's kills and signals; scripts/faults.py makes them all."""

from __future__ import annotations

from pathlib import Path

import kills
import pytest
from conftest import campaign
from small_run import Trial, do


def assert_held(*trials: Trial) -> None:
    assert trials
    assert [trial for trial in trials if not trial.held] == []


@pytest.mark.slow
def test_runs_that_are_killed_at_any_moment_end_with_the_same_numbers(root: Path) -> None:
    assert_held(*kills.kill_at_moments(root, kills.MOMENTS[4::4]))


@pytest.mark.slow
def test_so_do_those_that_are_killed_before_any_operation_on_a_file(root: Path) -> None:
    """Whatever their number is now: about eighty."""
    assert_held(*kills.kill_at_each_operation(root, 40))


@pytest.mark.slow
def test_so_do_those_that_are_killed_while_they_resume(root: Path) -> None:
    assert_held(*kills.kill_while_resuming(root, [5, 9]))


def test_a_signal_that_asks_to_stop_costs_no_step(root: Path) -> None:
    for name in ("SIGTERM", "SIGHUP"):
        (trial,) = kills.stop_by_signal(root, 1, name, seed=4)
        assert_held(trial)
        assert trial.lost == 0


@pytest.mark.slow
def test_three_runs_go_on_where_the_fourth_that_decoded_their_images_is_killed(root: Path) -> None:
    assert_held(*kills.kill_one_of_four_that_prepare(root, 1))


def test_of_two_runs_in_one_folder_one_is_refused(root: Path) -> None:
    assert_held(*kills.start_two_at_once(root, 1))


@pytest.mark.slow
def test_what_a_killed_process_was_writing_is_gone_when_the_run_goes_on_and_not_before(root: Path) -> None:
    place = root / "litter"
    do(place, *kills.RUN, STRIKE="kill 0 os.rename r/checkpoints/best.pt")
    (part,) = place.glob("r/checkpoints/best.pt.*.part")
    assert do(place, *kills.RUN)[0] == 2
    assert part.exists()
    code, said = do(place, "resume", "r")
    assert (code, part.exists()) == (0, False), said


@pytest.mark.slow
def test_a_second_ctrl_c_while_python_ends_prints_no_traceback(root: Path) -> None:
    trials = list(kills.stop_by_signal(root, 2, "SIGINT", twice=True))
    assert_held(*trials)


@campaign
def test_runs_that_are_killed_before_every_fourth_of_their_operations_on_files(root: Path) -> None:
    assert_held(*kills.kill_at_each_operation(root, 4))


@campaign
def test_runs_that_are_killed_at_random_moments(root: Path) -> None:
    assert_held(*kills.kill_at_random(root, 12))


@campaign
@pytest.mark.parametrize("name", kills.SIGNALS)
def test_signals_at_random_moments(root: Path, name: str) -> None:
    assert_held(*kills.stop_by_signal(root, 4, name))


@campaign
def test_a_run_one_of_whose_two_processes_is_killed(root: Path) -> None:
    assert_held(*kills.kill_one_process_of_two(root, 1))


@campaign
@pytest.mark.parametrize("whole", [True, False])
def test_a_sweep_that_is_killed(root: Path, whole: bool) -> None:
    assert_held(*kills.kill_a_sweep(root / str(whole), 1, whole))
