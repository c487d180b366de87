"""How the processes of a run come together, by the run's first one or by torchrun, and how they end together."""

from __future__ import annotations

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

from metarun.run.team import Group, Lost

LED = "METARUN_LED"
"""Environment variable of a process that another one of the run started."""

SETTINGS, SEED, READY = "metarun/settings", "metarun/seed", "metarun/ready"

PATIENCE = 10.0
"""Seconds that a process has to end."""

ROOT = Path(__file__).resolve().parents[2]


def launched() -> int:
    """The processes of which torchrun, or a run, made this one; 1 where it was started alone."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1


def place() -> int:
    """Which of the processes on this machine this one is, from 0."""
    return int(os.environ.get("LOCAL_RANK", 0))


@contextmanager
def leading(size: int, settings: str, seed: int, threads: int | str) -> Iterator[Group]:
    """The group of `size` processes whose first is this one; it starts the others where torchrun has not.

    Args:
        size: 1 for this process alone.
        settings: what the others are told.
        seed: see Group.
        threads: of torch in each that is started.
    Raises: Lost, inside, where another process ends before its time; with its last words.
    """
    if size == 1:
        yield Group()
        return
    others: list[Other] = []
    if launched() > 1:
        store, _, _ = next(rendezvous("env://"))
    else:
        store = TCPStore("127.0.0.1", 0, size, is_master=True, wait_for_workers=False)
        others += [Other(rank, size, store.port, threads) for rank in range(1, size)]
    try:
        store.set(SEED, str(seed))
        store.set(SETTINGS, settings)
        yield Group(0, size, seed, partial(_connect, store, 0, size, others))
    except Lost:
        deaths = [death for other in others if (death := other.death(1.0))]
        if not deaths:
            raise
        raise Lost("; ".join(deaths)) from Lost("\n".join(other.words() for other in others))
    finally:
        for other in others:
            other.end()
        if dist.is_initialized():
            dist.destroy_process_group()


def following() -> tuple[str, Group]:
    """What the first process told, and the group; for the other processes."""
    if os.environ.get(LED):
        threading.Thread(target=_end_with_the_first, daemon=True).start()
    store, rank, size = next(rendezvous("env://"))
    settings = store.get(SETTINGS).decode()
    return settings, Group(rank, size, int(store.get(SEED)), partial(_connect, store, rank, size, ()))


class Other:
    """Another process of the run, started by this one; it ends when this one does, however that ends."""

    def __init__(self, rank: int, size: int, port: int, threads: int | str) -> None:
        self.rank = rank
        self.said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        told |= {"OMP_NUM_THREADS": threads, LED: 1}
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "metarun"],
            env={**os.environ, **{key: str(value) for key, value in told.items()}, "PYTHONPATH": path},
            stdin=subprocess.PIPE, stdout=self.said, stderr=self.said,
            process_group=0,  # Ctrl-C is for the first process, which ends the others
        )  # fmt: skip

    def end(self) -> None:
        """Whatever it is doing."""
        assert self.process.stdin
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.said.close()

    def death(self, patience: float = 0.0) -> str | None:
        """How it ended and its last line, where it ended before its time."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        code = self.process.returncode
        if not code:
            return None
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        last = self.words().rpartition("\n")[2]
        return f"process {self.rank} {how}" + (f": {last}" if last else "")

    def words(self) -> str:
        """All that it said."""
        self.said.seek(0)
        return self.said.read().decode(errors="replace").strip()


def _end_with_the_first() -> None:
    """The first process holds the other end of this one's input."""
    sys.stdin.read()
    os._exit(1)


def _connect(store: Store, rank: int, size: int, others: Sequence[Other]) -> None:
    """Wait for all to be there, and to have built what they run."""
    store.set(f"{READY}/{rank}", "")
    while not store.check([f"{READY}/{number}" for number in range(size)]):
        if any(other.death() for other in others):
            raise Lost("another process of this run has ended")
        time.sleep(0.02)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
