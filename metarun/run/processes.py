"""Start, connect and end the processes of a run; the first process or torchrun starts them."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO

import torch
import torch.distributed as dist
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from metarun.core.errors import ConfigError
from metarun.core.launched import UNSET, read_launched
from metarun.run.team import Group, Lost

log = logging.getLogger(__name__)

STARTED_BY_RUN = "METARUN_LED"
"""Environment variable that marks a process started by the first process of the run."""

SETTINGS_KEY, SEED_KEY, READY_KEY = "metarun/settings", "metarun/seed", "metarun/ready"

SECONDS_TO_END = 10.0
"""Seconds that a process gets to end before it is killed."""

SOURCE_ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def lead_group(size: int, settings: str, seed: int, threads: int | str) -> Iterator[Group]:
    """Yield the group of `size` processes whose first is this one; start the others unless torchrun has.

    Args:
        size: 1 for this process alone.
        settings: the settings for the other processes.
        seed: see Group.
        threads: threads of torch in each process that is started.
    Raises: Lost, inside, if another process ends too early; the message has its last line.
    """
    if size == 1:
        yield Group()
        return
    others: list[Other] = []
    if read_launched()[1] > 1:
        log.info("process 0 of %d of torchrun's: waiting for the others; %s", size, UNSET)
        store = _meet()[0]
    else:
        store = TCPStore("127.0.0.1", 0, size, is_master=True, wait_for_workers=False)
        others += [Other(rank, size, store.port, threads) for rank in range(1, size)]
    try:
        store.set(SEED_KEY, str(seed))
        store.set(SETTINGS_KEY, settings)
        yield Group(0, size, seed, partial(_connect, store, 0, size, others))
    except Lost:
        deaths = [death for other in others if (death := other.describe_death(1.0))]
        if not deaths:
            raise
        raise Lost("; ".join(deaths)) from Lost("\n".join(other.read_output() for other in others))
    finally:
        for other in others:
            other.end()
        if dist.is_initialized():
            dist.destroy_process_group()


def join_group() -> tuple[str, Group]:
    """Return the settings from the first process, and the group. For the other processes."""
    if os.environ.get(STARTED_BY_RUN):
        threading.Thread(target=_end_with_the_first, daemon=True).start()
    else:
        rank, size = read_launched()
        print(f"process {rank} of {size} of torchrun's: waiting for the first; {UNSET}", file=sys.stderr)
    store, rank, size = _meet()
    settings = store.get(SETTINGS_KEY).decode()
    return settings, Group(rank, size, int(store.get(SEED_KEY)), partial(_connect, store, rank, size, ()))


def _meet() -> tuple[Store, int, int]:
    """Meet the others where the environment says. Raises: ConfigError if nobody is there."""
    try:
        store, rank, size = next(rendezvous("env://"))
    except RuntimeError as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ConfigError(f"no process of torchrun's can be met at {place}; {UNSET}") from error
    return store, rank, size


class Other:
    """Another process of the run, started by this one. It ends when this one ends, for any reason."""

    def __init__(self, rank: int, size: int, port: int, threads: int | str) -> None:
        self.rank = rank
        self.said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        told |= {"OMP_NUM_THREADS": threads, STARTED_BY_RUN: 1}
        path = os.pathsep.join([str(SOURCE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "metarun"],
            env={**os.environ, **{key: str(value) for key, value in told.items()}, "PYTHONPATH": path},
            stdin=subprocess.PIPE, stdout=self.said, stderr=self.said,
            process_group=0,  # Ctrl-C is for the first process, which ends the others
        )  # fmt: skip

    def end(self) -> None:
        """End the process, and kill it if it does not end by itself."""
        assert self.process.stdin
        self.process.stdin.close()
        try:
            self.process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.said.close()

    def describe_death(self, patience: float = 0.0) -> str | None:
        """Describe how it ended, with its last line; None if it runs or ended well."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        code = self.process.returncode
        if not code:
            return None
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        last = self.read_output().rpartition("\n")[2]
        return f"process {self.rank} {how}" + (f": {last}" if last else "")

    def read_output(self) -> str:
        """Read all its output."""
        self.said.seek(0)
        return self.said.read().decode(errors="replace").strip()


def _end_with_the_first() -> None:
    """End this process when the first one ends, which closes this one's standard input."""
    sys.stdin.read()
    os._exit(1)


def _connect(store: Store, rank: int, size: int, others: Sequence[Other]) -> None:
    """Wait until all processes have built their parts, then connect them."""
    store.set(f"{READY_KEY}/{rank}", "")
    while not store.check([f"{READY_KEY}/{number}" for number in range(size)]):
        if any(other.describe_death() for other in others):
            raise Lost("another process of this run has ended")
        time.sleep(0.02)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
