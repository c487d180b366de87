"""A contestant's process: it does what its parent asks for and answers."""

from __future__ import annotations

import ctypes
import gc
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from contestants.settings import Setting
from metarun.core.tuning import set_precision

MATRIX, OF_A_GPU = 2048, 8192
"""Rows and columns of the product that the peak is measured by."""


def main(asked: Connection, name: str, device: str, rank: int, size: int, file: str) -> None:
    """Answer until there is nobody who asks.

    Args:
        asked: dicts with what to `do`, a method of Worker, and with what arguments; a dict is the answer.
        name: one of `CONTESTANTS`.
        device: where to compute, by torch's name.
        rank, size: of the processes that share the tasks, this one and all.
        file: through which they find each other.
    """
    contestant, threads = CONTESTANTS[name]
    if threads:
        torch.set_num_threads(threads)
    try:
        worker = Worker(contestant, device, rank, size, file)
    except ImportError as error:
        asked.send({"error": f"{error.name} is not installed"})
        return
    asked.send({"threads": worker.threads})
    while True:
        try:
            question = asked.recv()
        except EOFError:
            return
        try:
            asked.send(getattr(worker, question.pop("do"))(**question))
        except Exception as error:  # the parent says it, and what becomes of the rest
            asked.send({"error": f"{type(error).__name__}: {error}"})


class Worker:
    """One contestant and the setting that it is at."""

    def __init__(self, contestant: str, device: str, rank: int, size: int, file: str) -> None:
        self.threads, self.group, self.device = torch.get_num_threads(), None, torch.device(device)
        set_precision("float32")  # all the same: torch by itself rounds in a GPU's convolutions
        self.build = BUILDERS[contestant]
        if size > 1:
            import torch.distributed as dist

            from metarun.run.team import Group

            dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=size)
            self.group = Group(rank, size)
        self.build(None, self.group)  # imports what it needs

    def prepare(self, setting: Setting) -> dict[str, Any]:
        """Build a setting; what its step computes, seconds until that was known, and seconds of a later step."""
        self.now = None
        _give_back()
        self._forget_peak()
        self.before = self._memory_now()
        started = time.perf_counter()
        self.now = self.build(setting, self.group)
        check = {} if setting.data == "omniglot" else self.now.check()
        rounds = check and setting.use == "train" and getattr(self.now, "precision", "float32") != "float32"
        rounded = self.now.error() if rounds else None
        self.now.step()
        self._done()
        first = time.perf_counter() - started
        self.now.step()  # what the first one recorded is held against plain calls here
        if self.device.type == "cpu":  # of a GPU a recorded step takes all its memory when it is recorded
            _give_back()
            self._forget_peak()
            self.before = self._memory_now()
        gradient = [float((value.astype("float64") ** 2).sum()) for name, value in check.items() if "." in name]
        scores = {name: float(value) for name, value in check.items() if "." not in name}
        found = {"scores": scores, "gradient": sum(gradient) ** 0.5, "rounded": rounded}
        return found | {"first": first, "seconds": self._timed()}

    def round(self, times: int) -> dict[str, Any]:
        """Seconds of a step, on the clock and of all cores: the mean over some."""
        if self.group:
            self.group.wait()
        started, cpu = time.perf_counter(), _cpu()
        for _ in range(times):
            self.now.step()
        self._done()
        return {"seconds": (time.perf_counter() - started) / times, "cpu": (_cpu() - cpu) / times}

    def memory(self) -> dict[str, Any]:
        """MiB that the setting took at most, of the device's memory, over what the process had before."""
        peak = torch.cuda.max_memory_reserved() // 1024 if self.device.type == "cuda" else _status("VmHWM")
        return {"mib": None if peak is None else (peak - self.before) / 1024}

    def peak(self) -> dict[str, Any]:
        """GFLOP/s of a product of matrices in float32: the best of some."""
        sides = OF_A_GPU if self.device.type == "cuda" else MATRIX
        a, b = torch.rand(2, sides, sides, device=self.device).unbind()
        if self.group:
            self.group.wait()
        seconds = []
        for _ in range(3):
            self._done()
            started = time.perf_counter()
            a @ b
            self._done()
            seconds.append(time.perf_counter() - started)
        return {
            "gflops": 2 * sides**3 / min(seconds) / 1e9,
            "median": 2 * sides**3 / statistics.median(seconds) / 1e9,
        }

    def count(self, setting: Setting) -> dict[str, Any]:
        """Operations of a step on the plain loop: two for each multiply-add of convolutions and matrix products."""
        from torch.utils.flop_counter import FlopCounterMode

        if setting.algo == "sampling":
            return {"flops": None}
        build = BUILDERS["plain"] if self.build is BUILDERS["metarun"] else self.build
        plain = build(replace(setting, tasks=1, chunk=1, data="given"), None)
        with FlopCounterMode(display=False) as counter:
            plain.step()
        return {"flops": counter.get_total_flops() * setting.tasks}

    def overhead(self, steps: int) -> dict[str, Any]:
        """See contestants/overhead.py."""
        from contestants.overhead import overhead

        return overhead(steps)

    def _timed(self) -> float:
        """Seconds of a step."""
        started = time.perf_counter()
        self.now.step()
        self._done()
        return time.perf_counter() - started

    def _done(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _memory_now(self) -> int | None:
        """KiB of the device's memory that the process has."""
        return torch.cuda.memory_reserved() // 1024 if self.device.type == "cuda" else _status("VmRSS")

    def _forget_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            _reset_peak()


def _metarun(replayed: bool, precision: str = "float32") -> Callable[..., Any]:
    def build(setting: Any, group: Any) -> Any:
        from contestants.ours import Metarun

        return Metarun(setting, replayed, group, precision) if setting else None

    return build


def _learn2learn(setting: Any, group: Any) -> Any:
    from contestants.peer import Learn2learn

    return Learn2learn(setting) if setting else None


def _jax(setting: Any, group: Any) -> Any:
    from contestants.jax_peer import Jax

    return Jax(setting) if setting else None


def _torchopt(setting: Any, group: Any) -> Any:
    from contestants.torchopt_peer import TorchOpt

    return TorchOpt(setting) if setting else None


BUILDERS = {
    "metarun": _metarun(True),
    "plain": _metarun(False),
    "tf32": _metarun(True, "tf32"),
    "bf16": _metarun(True, "bf16"),
    "learn2learn": _learn2learn,
    "torchopt": _torchopt,
    "jax": _jax,
}

CONTESTANTS: dict[str, tuple[str, int | None]] = {
    "learn2learn": ("learn2learn", None),
    "learn2learn-1": ("learn2learn", 1),
    "metarun": ("metarun", None),
    "metarun-1": ("metarun", 1),
    "plain": ("plain", None),
    "plain-1": ("plain", 1),
    "x2": ("metarun", 1),
    "tf32": ("tf32", None),
    "bf16": ("bf16", None),
    "torchopt": ("torchopt", None),
    "jax": ("jax", None),
}
"""What runs, and its threads; None: as many as it takes by itself. Of those called x2 there are two processes."""


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _status(key: str) -> int | None:
    """KiB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].split()[0]) if key in lines else None


def _reset_peak() -> None:
    """Have VmHWM begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def _give_back() -> None:
    """Memory that is free but kept, to the system."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
