"""What the runs of a group trained on, and how much: methods are compared at these budgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metarun.core.words import is_percent, name_task
from metarun.report.groups import Group
from metarun.report.runs import Run


def count_inputs(group: Group) -> float | None:
    """Count the images, or points of functions, that training drew, repeats too; None if a run does not tell."""
    return group.average("drawn", "inputs")


def count_steps(group: Group) -> tuple[float, float] | None:
    """Count the outer steps, and the inner steps of all tasks; None if a run does not tell."""
    counts = [_count_steps(run) for run in group.runs]
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        return None
    outer, inner = (sum(column) / len(known) for column in zip(*known, strict=True))
    return outer, inner


def describe_training(run: Run) -> str:
    """Describe the tasks that the run was trained on, as 60-way 1-shot."""
    drawn = run.results.get("drawn") or {}
    if drawn and not drawn["tasks"]:
        return "single images of all training classes"
    own = run.results.get("train") or {}
    n_way, k_shot = (
        next((v for v in (own.get(key), run.settings.get(f"data.train.{key}"), run.results.get(key)) if v), None)
        for key in ("n_way", "k_shot")
    )
    tasks = name_task(n_way, k_shot)
    asked = run.results.get("steps", 0) * (run.results.get("meta_batch_size") or 0)
    return f"single images, then {tasks}" if drawn and drawn["tasks"] < asked else tasks


def describe_testing(run: Run) -> str:
    """Describe the tasks of its validation, which are those of its own test, as 5-way 1-shot."""
    return name_task(*(run.settings.get(f"data.{key}", run.results.get(key)) for key in ("n_way", "k_shot")))


def find_chance(run: Run, score: str) -> float | None:
    """Return the score of guessing in its validation; None if that is not known."""
    n_way = run.settings.get("data.n_way", run.results.get("n_way"))
    return score_guess(score, n_way)


def score_guess(score: str, n_way: Any) -> float | None:
    """Return the `score` of guessing among so many classes; None if it is no accuracy, or they are not one number."""
    return 1 / n_way if n_way and isinstance(n_way, int) and is_percent(score) else None


def _count_steps(run: Run) -> tuple[float, float] | None:
    drawn, told = run.results.get("drawn"), run.results.get("inner_steps")
    if not drawn:
        return None
    inner: Any = told.get("train", 0) if isinstance(told, Mapping) else 0
    return float(run.results.get("steps", 0)), float(drawn["tasks"] * inner)
