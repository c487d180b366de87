"""What this machine has, and how runs that go on at the same time share it."""

from __future__ import annotations

import atexit
import ctypes
import gc
import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

SEATS = Path(tempfile.gettempdir()) / f"metarun-{os.getuid()}"
"""Where this user's runs on this machine lock the GPUs they take."""

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h


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


def keep_memory() -> None:
    """Have the process keep memory that tensors on the CPU have left for the next ones.

    glibc gives large pieces back to the system at once, and every new one costs a page fault for each 4 KB: a quarter
    of an outer step of small tensors, half of one at 84x84. Where there is another libc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_MAX, 0)  # no piece of its own mapping, which would go back when it is freed
    mallopt(_TRIM_THRESHOLD, -1)  # never


def multiply_in(precision: str) -> None:
    """How this process multiplies matrices, and convolves, in float32: exactly as `float32` says, or with the factors
    rounded to `tf32` (10 bits, what torch by itself does in convolutions on a GPU) or `bf16` (7), where it can.

    Sums and everything else stay float32. Second-order gradients suffer most: see scripts/bench.py --only tf32,bf16.
    """
    import torch

    torch.backends.fp32_precision = "ieee" if precision == "float32" else precision  # type: ignore[attr-defined]


def wait_briefly() -> None:
    """Have threads of GNU's OpenMP, which torch has on Linux, wait awake for microseconds, not for milliseconds.

    Where others want the cores too, threads that wait awake keep from them the very thread that they wait for: beside
    two busy processes on two cores a step of 0.07 s took 0.9 to 2.1 s, and takes 0.25 s so; alone it loses nothing.
    Heeded when torch is imported; what the user has set of this is left.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "30000")


@contextmanager
def lasting() -> Iterator[None]:
    """Imports inside stay for good: Python looks for no garbage among them, then (a sixth of their time) or later."""
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # the first time: garbage that came since would stay as well
            gc.freeze()
            atexit.register(gc.unfreeze)  # what is not taken down at the end is called a leak by triton
        gc.enable()


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
