"""How far a sweep is, in a line."""

from __future__ import annotations

from collections.abc import Sequence

from metarun.app.sweeps.job_state import Job
from metarun.core.words import format_duration

MOST_NAMED = 4
"""Running jobs that a line names."""

LEAST_DONE = 0.02
"""Share of the work from which on the rest is estimated."""


def describe_progress(jobs: Sequence[Job], expected: int | None, elapsed: float) -> str:
    """Describe which jobs run, how far each is, and how long all may still take; empty if none runs.

    Args:
        expected: the number of all jobs, if it is known.
        elapsed: seconds since the sweep began.
    """
    running = [(job, own) for job, own in zip(jobs, list_own_words(jobs), strict=True) if job.state == "running"]
    if not running:
        return ""
    named = [f"{own or 'it'} {job.step}/{job.steps}" for job, own in running[:MOST_NAMED]]
    named += [f"{len(running) - MOST_NAMED} more"] if len(running) > MOST_NAMED else []
    done, left = sum(job.done for job in jobs), estimate_left(jobs, expected, elapsed)
    rest = f"; about {format_duration(left)} left" if left is not None else ""
    return f"{done} of {expected or len(jobs)} done, {len(running)} running: {', '.join(named)}{rest}"


def estimate_left(jobs: Sequence[Job], expected: int | None, elapsed: float) -> float | None:
    """Estimate the seconds that the rest takes if it goes on as until now; None before enough is done.

    Jobs that an earlier sweep finished count as no work.
    """
    total = max(expected or 0, len(jobs)) - sum(job.state == "skipped" for job in jobs)
    ended = sum(job.state not in ("running", "waiting", "skipped") for job in jobs)
    made = ended + sum(job.step / job.steps for job in jobs if job.state == "running" and job.steps)
    if not total or made < LEAST_DONE * total:
        return None
    return elapsed * (total - made) / made


def list_own_words(jobs: Sequence[Job]) -> list[str]:
    """List the overrides of each job that are not those of all."""
    shared = set.intersection(*(set(job.overrides.split()) for job in jobs)) if len(jobs) > 1 else set[str]()
    return [" ".join(word for word in job.overrides.split() if word not in shared) for job in jobs]
