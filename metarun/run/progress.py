"""The progress of a run, with the numbers of its last outer steps, which must be finite."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from metarun.core.scores import check_name
from metarun.core.tasks import Metrics


class Diverged(RuntimeError):
    """A loss, a gradient or a weight is not a finite number.

    Attributes:
        step: the outer step, from 1.
        task: the number of the task in its meta-batch; None if it is not known.
    """

    def __init__(self, message: str, step: int, task: int | None = None) -> None:
        super().__init__(message)
        self.step, self.task = step, task


@dataclass
class Progress:
    """How far a run is. All of it goes into checkpoints.

    Attributes:
        drawn: the inputs and the tasks of all outer steps; None where they are not known, as in older checkpoints.
        The others are as in results.json.
    """

    step: int = 0
    best_step: int | None = None
    best: dict[str, float] = field(default_factory=dict)
    train_seconds: float = 0.0
    val_seconds: float = 0.0
    window: list[dict[str, float]] = field(default_factory=list)
    metrics_bytes: int = 0
    metrics_sha256: str = ""
    skipped: int = 0
    drawn: tuple[int, int] | None = None

    def count(self, drawn: tuple[int, int] | None) -> None:
        """Count what the next outer step draws; its first call must be that of the first step."""
        before = (0, 0) if self.step == 0 else self.drawn
        self.drawn = (before[0] + drawn[0], before[1] + drawn[1]) if before and drawn else None

    def list_facts(self) -> dict[str, Any]:
        """Return what results.json says of it."""
        drawn = self.drawn and dict(zip(("inputs", "tasks"), self.drawn, strict=True))
        return {
            **({"drawn": drawn} if drawn else {}),
            **({"skipped_steps": self.skipped} if self.skipped else {}),
            "val": dict(self.best),
            "best_step": self.best_step,
            "steps": self.step,
        }

    def find_rate(self, n_tasks: int) -> float | None:
        """Return the tasks trained on in a second, if a step has `n_tasks`; None before the first step."""
        return self.step * n_tasks / self.train_seconds if self.train_seconds else None


def average(lines: list[dict[str, float]]) -> dict[str, float]:
    """Average each metric over the outer steps that have it: a stage may have its own."""
    names = dict.fromkeys(name for line in lines for name in line)
    return {name: float(np.mean([line[name] for line in lines if name in line])) for name in names}


def read_numbers(pending: list[Metrics], step: int) -> list[dict[str, float]]:
    """Read the metrics of the last outer steps up to `step` as plain numbers.

    Raises: Diverged if one of them is not finite.
    """
    for name, value in (pair for line in pending for pair in line.items()):
        check_name(name)
        if not isinstance(value, torch.Tensor) or value.ndim:
            raise ValueError(f"the metric {name} of an outer step must be a scalar tensor, as loss.detach()")
    every = [value.detach().float() for line in pending for value in line.values()]
    numbers = iter(torch.stack(every).tolist())  # a single transfer from the device
    rows = [{name: next(numbers) for name in line} for line in pending]
    for back, row in enumerate(reversed(rows)):
        for name, value in row.items():
            if not np.isfinite(value):
                raise Diverged(f"{name} is {value} at outer step {step - back}", step - back)
    return rows
