"""Memory, threads and open files of a command that goes on for long: they do not grow."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from commands import Command
from small_run import FEW, Trial, begin, last_step

GROWTH = 1.05
"""Memory at the end over that at a third of the way, at most; threads and files may not grow by more than two."""

PAUSE = 0.05
"""Seconds between two looks, so many that some fall where a job has no file open but those it keeps."""


class Use(NamedTuple):
    """What a process holds: memory in kB, threads, open files."""

    memory: int
    threads: int
    files: int


def watch_long_runs(root: Path, times: int) -> Iterator[Trial]:
    """20,000 outer steps, and 200 jobs of a sweep in one process; fewer with fewer times than 50."""
    share = min(1.0, times / 50)
    yield watch_steps(root / "steps", int(20_000 * share))
    yield watch_jobs(root / "jobs", int(200 * share))


def watch_steps(place: Path, steps: int) -> Trial:
    """A run of so many outer steps."""
    words = ["algo=protonet", *FEW, f"run.steps={steps}", "run.meta_batch_size=1", "logger=none", "run.val_every=1000"]
    run = begin(place, *words, "run.log_every=20", "run.checkpoint_every=500", "hydra.run.dir=r")
    return _watch(run, f"{steps:,} outer steps", place, lambda: last_step(place / "r") / steps)


def watch_jobs(place: Path, jobs: int) -> Trial:
    """A sweep of so many jobs, one after the other in one process."""
    words = ["-m", "algo=protonet", *FEW, "run.steps=2", "logger=none", f"seed=range({jobs})", "hydra.sweep.dir=s"]

    def count() -> float:
        return len([*(place / "s").glob("*/results.json")]) / jobs

    return _watch(begin(place, *words), f"{jobs:,} jobs in one process", place, count)


def _watch(run: Command, what: str, place: Path, find_progress: Callable[[], float]) -> Trial:
    """Watch from a tenth of the way to its end: what comes before and after, as a comparison, is another matter."""
    seen: list[Use] = []
    while run.poll() is None and (progress := find_progress()) < 1:
        try:
            seen += [read_use(run.pid)] if progress > 0.1 else []
        except (OSError, KeyError):  # it has just ended
            break
        time.sleep(PAUSE)
    out, error = run.communicate(timeout=600)
    if run.returncode or not seen:
        return Trial(what, "", f"ended with {run.returncode}, seen {len(seen)} times: {(out + error)[-600:]}")
    shutil.rmtree(place)
    return judge(what, seen)


def judge(what: str, seen: list[Use]) -> Trial:
    """Compare the last tenth of the time with the tenth after a third of it.

    Memory and threads at their most. Files at their fewest: between four and fourteen are open while a job writes,
    reads the cache and asks git, whenever one looks; what is never closed is there in every look.
    """
    tenth = max(1, len(seen) // 10)
    early, late = (_summarise(part) for part in (seen[len(seen) // 3 :][:tenth], seen[-tenth - 1 :]))
    flat = late.memory <= GROWTH * early.memory
    flat = flat and late.threads <= early.threads + 2 and late.files <= early.files + 2
    told = f"{early.memory:,} to {late.memory:,} kB, {early.threads} to {late.threads} threads, "
    told += f"{early.files} to {late.files} open files"
    print(f"{what}: {told}", flush=True)
    return Trial(f"{what}: {told}", "", "equal" if flat else f"grows: {told}")


def _summarise(part: list[Use]) -> Use:
    memory, threads, files = zip(*part, strict=True)
    return Use(max(memory), max(threads), min(files))


def read_use(pid: int) -> Use:
    """What the process holds now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    told = dict(line.split(":", 1) for line in lines)
    return Use(int(told["VmRSS"].split()[0]), int(told["Threads"]), len(os.listdir(f"/proc/{pid}/fd")))
