"""Later tests of runs by `metarun eval`, to be compared as runs are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from metarun.report.groups import split_comparable
from metarun.report.runs import Run

TAKEN = (
    "data", "n_way", "k_shot", "n_query", "bn", "query", "answers", "images", "split_sha256", "episode_sha256", "test",
    "directions",
)  # fmt: skip
"""Fields of a test's result that stand in place of the run's own."""


@dataclass(frozen=True)
class Tested(Run):
    """A finished run with the scores of a later test, which lie in `file` (.json) and beside it (.npz).

    What the test changed stands among its settings as test.KEY, as test.algo or test.algo.inner_lr.
    """

    file: Path = field(default_factory=Path)

    @property
    def place(self) -> Path:
        return self.file

    @property
    def results_file(self) -> Path:
        return self.file

    @property
    def scores_file(self) -> Path:
        return self.file.with_suffix(".npz")


def read_tests(run: Run) -> list[Tested]:
    """Read the later tests of a finished run, without those that its own test repeats."""
    found = []
    for file, one, _ in run.tests:
        if not one or "episode_sha256" not in one:
            continue
        changes = one.get("changes") or {}
        fields = {key: one[key] for key in TAKEN if key in one}
        if not changes and all(run.results.get(key) == fields.get(key) for key in ("bn", "episode_sha256")):
            continue
        settings = {**run.settings, **{f"test.{key}": value for key, value in changes.items()}}
        results = {**run.results, **fields, "paper": None}
        found.append(Tested(run.folder, run.state, results, settings, run.overrides, run.damage, file))
    return sorted(found, key=lambda test: [str(test.results.get(key)).zfill(6) for key in TAKEN[:5]])


def add_tests(runs: Sequence[Run]) -> tuple[list[Run], int]:
    """Add to `runs` their later tests that can be compared with another run or test.

    Returns: the runs and tests, and the number of the other tests.
    """
    tests = [test for run in runs for test in read_tests(run)]
    sets = split_comparable([*runs, *tests]).values()
    matched = {id(one) for together in sets if len(together) > 1 for one in together}
    kept = [test for test in tests if id(test) in matched]
    return [*runs, *kept], len(tests) - len(kept)
