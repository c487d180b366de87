"""A few of the campaign's full disks; scripts/faults.py makes them all."""

from __future__ import annotations

from pathlib import Path

import full_disk
import pytest
from small_run import do
from test_kills import assert_held


@pytest.mark.slow
@pytest.mark.parametrize("lasting", [True, False])
def test_a_disk_that_is_full_for_a_while_or_for_good_costs_what_was_not_saved(root: Path, lasting: bool) -> None:
    assert_held(*full_disk.fill_at_each_operation(root, [12, 33], lasting))


def test_a_full_disk_is_said_of_the_cache_too(root: Path) -> None:
    code, said = do(root / "cache", *full_disk.RUN, STRIKE="full 0 safetensors.PID.part")
    assert code == 2
    assert f"cannot write {root / 'cache' / 'cache'}: No space left on device. Set paths.cache=FOLDER" in said


@pytest.mark.slow
def test_a_small_disk_that_runs_full(root: Path) -> None:
    trials = list(full_disk.fill_a_disk(root, [4, 600, 660, 700, 760]))
    if not trials:
        pytest.skip("no disk can be made here")
    assert_held(*trials)


@pytest.mark.slow
def test_files_that_may_not_grow(root: Path) -> None:
    assert_held(*full_disk.limit_each_size(root, [9000, 15000, 24000, 30000]))
