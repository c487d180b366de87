"""What runs of targets came to: kept in one file, which the table is made from when the runs' folders are gone."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from metarun.core.errors import ConfigError
from metarun.core.machine import GPU_LOCKS
from metarun.core.whole import write_json
from metarun.report.runs import Run
from reproduction.targets import NAMED, Target, compose_target, differing

KEPT = Path(__file__).resolve().parents[1] / "results" / "reproduction.json"

Key = tuple[tuple[str, ...], int]
"""A target's words, and a seed."""


@dataclass(frozen=True)
class Outcome:
    """A finished run of one or more targets.

    Attributes:
        words: of its targets, see Target.
        test: mean, ci95 and n_tasks of every score.
        n_query, bn: how it was tested.
        changed: settings of NAMED that are not the experiment's: the run's value and the experiment's.
        steps, best_step: outer steps, and the one that was tested.
        hours: of training, validation and test.
        hardware: the card or the processor.
        versions: of python, torch and metarun.
        commit: of the code; None for an installed copy.
        command: what was typed.
    """

    words: tuple[str, ...]
    seed: int
    test: Mapping[str, Mapping[str, Any]]
    n_query: int
    bn: str
    changed: Mapping[str, tuple[Any, Any]]
    steps: int
    best_step: int
    hours: float
    hardware: str
    versions: Mapping[str, str]
    commit: str | None
    command: str

    @property
    def key(self) -> Key:
        return self.words, self.seed


class Finder:
    """Finds the target that a run is of. Composes each target's settings once."""

    def __init__(self, targets: Iterable[Target]) -> None:
        firsts: dict[tuple[str, ...], Target] = {}
        for target in targets:
            firsts.setdefault(target.words, target)
        self.targets = list(firsts.values())
        self.wanted: dict[tuple[str, ...], dict[str, Any]] = {}

    def outcome(self, run: Run, target: Target | None = None) -> Outcome:
        """What the finished run came to, as one of `target`, or of whichever target it is.

        Raises: ConfigError if it is of none; it names what the nearest one has otherwise.
        """
        apart = [(self._apart(run, one), one) for one in ([target] if target else self.targets)]
        wrong, changed, found = min(
            (({key: both for key, both in one.items() if key not in NAMED}, one, of) for one, of in apart),
            key=lambda each: (len(each[0]), len(each[1])),
        )
        if wrong:
            said = ", ".join(f"{key} is {ours}, not {theirs}" for key, (ours, theirs) in list(wrong.items())[:6])
            raise ConfigError(
                f"{run.folder} is not a run of {'' if target else 'any target; nearest is '}{found.name}: {said}"
            )
        return _outcome(run, found, changed)

    def _apart(self, run: Run, target: Target) -> dict[str, tuple[Any, Any]]:
        if target.words not in self.wanted:
            self.wanted[target.words] = compose_target(target)
        return differing(run.folder, self.wanted[target.words])


def _outcome(run: Run, target: Target, changed: Mapping[str, tuple[Any, Any]]) -> Outcome:
    results, versions = run.results, run.results.get("versions") or {}
    words = [word for word in results["overrides"] if not word.startswith(("paths.", "hydra.", "logger"))]
    return Outcome(
        words=target.words,
        seed=results["seed"],
        test={
            score: {key: found[key] for key in ("mean", "ci95", "n_tasks")} for score, found in results["test"].items()
        },
        n_query=results["n_query"],
        bn=results["bn"],
        changed=dict(changed),
        steps=results["steps"],
        best_step=results["best_step"],
        hours=round(results["seconds"]["total"] / 3600, 4),
        hardware=results.get("device_name") or results["device"],
        versions={name: found for name in ("python", "torch", "metarun") if (found := versions.get(name))},
        commit=(results.get("git") or {}).get("commit"),
        command=shlex.join(["metarun", *words]),
    )


def read_outcomes(file: Path = KEPT) -> dict[Key, Outcome]:
    """The outcomes that `file` keeps; none without it."""
    found = json.loads(file.read_text())["runs"] if file.is_file() else []
    outcomes = [
        Outcome(**{
            **one,
            "words": tuple(one["words"]),
            "changed": {key: tuple(both) for key, both in one["changed"].items()},
        })
        for one in found
    ]  # fmt: skip
    return {outcome.key: outcome for outcome in outcomes}


def keep(outcome: Outcome, file: Path = KEPT) -> None:
    """Write the outcome into `file`, in place of an earlier one of its words and seed; several processes may."""
    GPU_LOCKS.mkdir(exist_ok=True)
    with FileLock(GPU_LOCKS / "reproduction.lock"):
        outcomes = read_outcomes(file) | {outcome.key: outcome}
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"runs": [asdict(outcomes[key]) for key in sorted(outcomes)]})
