"""Tests of a finished run on other sources, ways, shots and queries, as a person asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarun.core import tuning
from metarun.core.errors import ConfigError

if TYPE_CHECKING:
    from metarun.app.jobs.reopened import Trained
    from metarun.app.jobs.tested_weights import Checkpoint

Draw = Callable[["Trained", Mapping[str, Any], str], None]


@dataclass(frozen=True)
class Asked:
    """Which tests of a run are asked for.

    Attributes:
        typed: overrides; several values of a key make a test each.
        again: repeat tests that were made before.
        trust: whether the run's settings may name code that does not come with metarun.
        own: folders of YAML files of one's own.
        split: `test`, or `val` for validation tasks.
        choose: test only those values of algo.KEY that are the best on validation tasks.
        checkpoint: which weights are tested.
    """

    typed: Sequence[str] = ()
    again: bool = False
    trust: bool = False
    own: Sequence[str] = ()
    split: str = "test"
    choose: bool = False
    checkpoint: Checkpoint = "best"


def evaluate_run(
    folder: Path, asked: Asked, done: Callable[[Mapping[str, Any]], None], draw: Draw | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Test the run in `folder`; return the results, each kept in a file there, and why other tests were impossible.

    Args:
        done: is told of each test that is made now.
        draw: draws pictures of a test, given the run, the test's values and its BatchNorm mode.
    Raises: ConfigError if there is no finished run, or no test could be made.
    """
    with tuning.frozen_imports():
        from metarun.app.jobs.chosen import choose_on_validation, on_validation_tasks
        from metarun.app.jobs.reopened import open_trained
        from metarun.app.jobs.retest_settings import list_combinations
        from metarun.app.jobs.retests import run_tests
        from metarun.run.interrupt import stop_requests
    found, refused = list[dict[str, Any]](), list[str]()
    tests, modes, machine = list_combinations(asked.typed, asked.own)
    opened = open_trained(folder, tests[0], machine, asked.trust, asked.own, asked.checkpoint)
    with stop_requests() as stop, opened as run:
        run = on_validation_tasks(run) if asked.split == "val" else run
        chosen: Iterable[tuple[Mapping[str, Any], Sequence[str]]] = zip(tests, repeat(modes))
        if asked.choose:
            chosen = choose_on_validation(run, tests, modes, asked.again, stop, done)
        for values, wanted in chosen:
            try:
                for one in run_tests(run, values, wanted, asked.again, stop, done):
                    found.append(one)  # one by one: a later mode may be refused
                    if draw:
                        draw(run, values, one["bn"])
            except ConfigError as error:
                words = " ".join(f"{key}={value}" for key, value in values.items())
                refused.append(f"{words}: {error}" if len(tests) > 1 else str(error))
    if not found:
        raise ConfigError("\n".join(refused))
    return found, refused
