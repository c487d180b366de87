"""Learning curves of a group of runs, as a mean and a band at each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metarun.report.runs import Run

MAX_POINTS = 100
"""Most points of a curve; more logged lines are averaged in equal portions."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One score of several runs, point by point, for the steps that all of them reached.

    Attributes:
        step: outer steps [points].
        seconds: time spent in training until then, mean over the runs [points]; None if it was not logged.
        mean, low, high: mean, lowest and highest score of the runs [points].
        runs: number of runs.
        portion: number of logged lines of a run that were averaged into one point.
    """

    step: Floats
    seconds: Floats | None
    mean: Floats
    low: Floats
    high: Floats
    runs: int
    portion: int


class _Logged(NamedTuple):
    """The columns of one run's lines [points]."""

    step: Floats
    seconds: Floats | None
    value: Floats


def read_curves(runs: Sequence[Run], score: str) -> dict[str, Curve]:
    """Read the curves of train and val, if the runs logged `score` there."""
    logged = [list(run.lines()) for run in runs]
    found = {split: _join_runs([_read_logged(lines, score, split) for lines in logged]) for split in ("train", "val")}
    return {split: curve for split, curve in found.items() if curve}


def _join_runs(logged: Sequence[_Logged]) -> Curve | None:
    """Join the runs into one curve, interpolating linearly where they logged at different steps.

    Returns: None if they share no step.
    """
    logged = [run for run in logged if len(run.step)]
    if not logged:
        return None
    portion = -(-max(len(run.step) for run in logged) // MAX_POINTS)
    logged = [_average(run, portion) for run in logged]
    first, last = max(run.step[0] for run in logged), min(run.step[-1] for run in logged)
    step = min((run.step for run in logged), key=len)
    step = step[(step >= first) & (step <= last)]
    if not len(step):
        return None
    values = np.stack([np.interp(step, run.step, run.value) for run in logged])  # [runs, points]
    times = [np.interp(step, run.step, run.seconds) for run in logged if run.seconds is not None]
    seconds = np.mean(times, 0) if len(times) == len(logged) else None
    return Curve(step, seconds, values.mean(0), values.min(0), values.max(0), len(logged), portion)


def _average(run: _Logged, portion: int) -> _Logged:
    starts = np.arange(0, len(run.step), portion)
    counts = np.diff([*starts, len(run.step)])
    step, value = (np.add.reduceat(column, starts) / counts for column in (run.step, run.value))
    return _Logged(step, None if run.seconds is None else np.add.reduceat(run.seconds, starts) / counts, value)


def _read_logged(lines: Sequence[dict[str, Any]], score: str, split: str) -> _Logged:
    """Read the columns of one split. The time of a validation is interpolated between logged training steps."""
    of_split = [line for line in lines if line.get("split") == split and score in line]
    step = np.array([line["step"] for line in of_split], np.float64)
    timed = [(line["step"], line["seconds"]) for line in lines if line.get("split") == "train" and "seconds" in line]
    seconds = np.interp(step, *np.array([(0, 0), *timed], np.float64).T) if timed else None
    return _Logged(step, seconds, np.array([line[score] for line in of_split], np.float64))
