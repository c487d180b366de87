"""Settings of an algorithm chosen on validation tasks, so that the best alone is tested."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from metarun.app.jobs.reopened import Trained
from metarun.app.jobs.retests import Done, run_tests
from metarun.core.errors import ConfigError
from metarun.core.scores import choose_score, is_better, read_directions
from metarun.run.interrupt import StopRequest

log = logging.getLogger(__name__)

Values = Mapping[str, Any]


def on_validation_tasks(run: Trained) -> Trained:
    """Return the same run, to be tested on validation tasks, as many as tests have."""
    return replace(run, split="val", asked={**run.asked, "tasks": "val"})


def choose_on_validation(
    run: Trained, asked: Sequence[Values], modes: Sequence[str], again: bool, stop: StopRequest, done: Done
) -> Iterator[tuple[Values, Sequence[str]]]:
    """Yield what is to be tested, with its BatchNorm modes: of values that differ in algo.KEY alone, the best.

    Args:
        asked: what is typed, a combination each.
        modes: as `run_tests` takes them; each mode gets values of its own.
    Raises: ConfigError if there is nothing to choose from.
    """
    alike: dict[str, list[Values]] = {}
    for values in asked:
        others = {key: value for key, value in values.items() if not key.startswith("algo.")}
        alike.setdefault(repr(others), []).append(values)
    if len(alike) == len(asked):
        raise ConfigError("--choose needs several values of a setting of the algorithm, as algo.lr=0.001,0.01,0.1")
    validated = on_validation_tasks(run)
    for group in alike.values():
        best: dict[str, tuple[Values, Mapping[str, Any]]] = {}
        for values in group:
            for one in run_tests(validated, values, modes, again, stop, done):
                if one["bn"] not in best or _is_better(one, best[one["bn"]][1]):
                    best[one["bn"]] = values, one
        for mode, (values, found) in best.items():
            settings = " ".join(f"{key}={value}" for key, value in values.items() if key.startswith("algo"))
            log.info(
                "bn=%s: %s is the best of %d on %d validation tasks, and tested",
                *(mode, settings, len(group), found["test"]["loss"]["n_tasks"]),
            )
            yield values, [mode]


def _is_better(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    own = read_directions(one)
    score = choose_score(one["test"], own)
    return is_better(score, one["test"][score]["mean"], other["test"][score]["mean"], own)
