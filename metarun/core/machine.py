"""The cores and GPUs of this machine, and how runs share them."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

GPU_LOCKS = Path(tempfile.gettempdir()) / f"metarun-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
"""The folder in which this user's runs on this machine lock the GPUs that they take."""


def count_cores() -> int:
    """Count the cores that this process may use, by its affinity and the container's quota."""
    import joblib

    return int(joblib.cpu_count())


def list_gpus() -> list[str]:
    """List the GPUs that this process may use, in torch's order, by their names on the whole machine."""
    import torch

    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return named if len(named) == count else [str(index) for index in range(count)]


def count_jobs_at_once(jobs: int, threads: int | None, cores: int, gpus: int) -> int:
    """Count the `jobs` to run at a time: one per GPU, or one per `threads` cores if there is no GPU."""
    return max(1, min(jobs, gpus or cores // (threads or 1)))


def share_cores(jobs: int, threads: int | None, cores: int, gpus: int) -> int:
    """Return `threads`, or else an equal share of the cores for each of the jobs that run at a time."""
    return threads or max(1, cores // count_jobs_at_once(jobs, None, cores, gpus))


def count_processes(tasks: int, places: int) -> int:
    """Count the processes, at most `places`, that share the `tasks`.

    It is the smallest number of processes for which the busiest one has as few tasks as possible.
    """
    return split_evenly(tasks, max(1, min(tasks, places)))


def split_evenly(n: int, most: int) -> int:
    """Split n into the fewest parts of at most `most`, and return their size."""
    return -(-n // -(-n // most))


@contextmanager
def hold_gpu(names: Sequence[str], folder: Path = GPU_LOCKS) -> Iterator[int]:
    """Yield the index of the GPU of `names` that the fewest runs are on; the lock is held inside the context."""
    folder.mkdir(exist_ok=True)
    for place in itertools.count():
        row, index = divmod(place, len(names))
        lock = FileLock(folder / f"{names[index]}-{row}.lock", timeout=0)  # the lock of a dead process is free
        try:
            lock.acquire()
        except Timeout:
            continue
        try:
            yield index
        finally:
            lock.release()
        return
