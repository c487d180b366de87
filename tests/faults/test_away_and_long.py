"""W&B away or killed, runs that go on for long, and the table of it all; scripts/faults.py makes the whole."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import long_runs
import pytest
import wandb_away
from long_runs import Use
from small_run import Trial
from test_kills import assert_held

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))


@pytest.mark.slow  # 10 s; tests/test_wandb_away.py has a sink that fails at any call
def test_a_run_outlives_the_process_of_wandb_and_prints_no_traceback(root: Path) -> None:
    assert_held(wandb_away.kill_service(root / "wandb", root, 1))


@pytest.mark.slow
@pytest.mark.parametrize("mood", wandb_away.MOODS)
def test_a_run_ends_with_its_numbers_whatever_the_mood_of_the_server_of_wandb(root: Path, mood: str) -> None:
    assert_held(wandb_away.try_mood(root, mood))


@pytest.mark.slow
def test_memory_threads_and_open_files_do_not_grow_with_steps_or_jobs(root: Path) -> None:
    assert_held(long_runs.watch_steps(root / "steps", 2_000), long_runs.watch_jobs(root / "jobs", 40))


@pytest.mark.parametrize(
    ("late", "held"),
    [(Use(1049, 5, 12), True), (Use(1060, 4, 10), False), (Use(1000, 7, 10), False), (Use(1000, 4, 13), False)],
)
def test_what_a_process_holds_may_not_grow_from_a_third_of_its_way_on(late: Use, held: bool) -> None:
    """Before, it fills: caches, imports. At most 5 % more memory, two threads, two files that stay open."""
    filling = [Use(100 * n, 1, n) for n in range(10)]
    writing = [used._replace(files=used.files + 9) for used in (Use(1000, 4, 10), late)]
    early, late_ones = ([used, busy] * 5 for used, busy in zip((Use(1000, 4, 10), late), writing, strict=True))
    assert long_runs.judge("", [*filling, *early, *late_ones]).held == held


def test_the_table_counts_each_fault_s_outcomes_and_has_the_most_that_was_lost() -> None:
    from faults import make_table

    trials = [
        Trial("a", "", "equal", 2),
        Trial("b", "", "said"),
        Trial("a", "", "ended with 1", 1),
        Trial("a", "", "equal"),
    ]
    assert make_table(trials)[2:] == ["| a | 3 | 2 |  | 1 | 2 |", "| b | 1 |  | 1 |  |  |"]


def test_campaigns_that_were_broken_off_go_on_after_those_that_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import faults

    tried: list[str] = []

    def make(name: str) -> faults.Campaign:
        def campaign(root: Path, times: int) -> Iterator[Trial]:
            tried.append(name)
            if tried == ["a", "b"]:
                raise KeyboardInterrupt
            yield Trial(name, "", "equal", times)

        return campaign

    monkeypatch.setattr(faults, "CAMPAIGNS", {name: make(name) for name in "ab"})
    monkeypatch.setattr(sys, "argv", ["faults.py", "--done", str(tmp_path / "done"), "--times", "7"])
    with pytest.raises(KeyboardInterrupt):
        faults.main()
    assert (faults.main(), tried) == (0, ["a", "b", "b"])
    assert faults.read_done(tmp_path / "done") == {name: [Trial(name, "", "equal", 7)] for name in "ab"}
