"""What this machine has, and how runs that go on at the same time share it."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

SEATS = Path(tempfile.gettempdir()) / f"metarun-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
"""Where this user's runs on this machine lock the GPUs they take."""


def cores() -> int:
    """Cores this process may use: affinity and the container's quota count."""
    import joblib

    return int(joblib.cpu_count())


def gpus() -> list[str]:
    """What the GPUs that this process may use are called on the whole machine, by torch's index."""
    import torch

    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return named if len(named) == count else [str(index) for index in range(count)]


def jobs_at_once(jobs: int, threads: int | None, cores: int, gpus: int) -> int:
    """How many of `jobs` to run at a time: one a GPU, or where there is none one for every `threads` cores."""
    return max(1, min(jobs, gpus or cores // (threads or 1)))


def cores_per_job(jobs: int, threads: int | None, cores: int, gpus: int) -> int:
    """`threads`, or an equal share of the cores for each of the jobs that run at a time."""
    return threads or max(1, cores // jobs_at_once(jobs, None, cores, gpus))


def share_of(tasks: int, places: int) -> int:
    """How many processes share `tasks` on so many places: no more than it takes to leave each as few as possible."""
    most = -(-tasks // max(1, min(tasks, places)))
    return -(-tasks // most)


@contextmanager
def seat(names: Sequence[str], folder: Path = SEATS) -> Iterator[int]:
    """The index of one of `names`, held inside: a free one if there is one, then one that holds a single run, ..."""
    folder.mkdir(exist_ok=True)
    for place in itertools.count():
        row, index = divmod(place, len(names))
        lock = FileLock(folder / f"{names[index]}-{row}.lock", timeout=0)  # a dead process holds nothing
        try:
            lock.acquire()
        except Timeout:
            continue
        try:
            yield index
        finally:
            lock.release()
        return
