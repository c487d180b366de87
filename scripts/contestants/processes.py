"""The parent's end of a contestant: its process, or the processes that share its tasks."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
from typing import Any

from contestants.settings import Setting
from contestants.worker import main

FORKS = multiprocessing.get_context("forkserver")
"""Contestants begin as copies of one process that has imported what takes long, and has done nothing else."""

FORKS.set_forkserver_preload(["__main__", "contestants.ours", "contestants.peer"])

JAX = "jax"

ONE_BY_ONE = 64
"""Tasks of a step from which on learn2learn, which takes them one by one, has nothing new to tell."""


class Refused(RuntimeError):
    """A contestant cannot do what it was asked to."""


class Contestant:
    """Processes that do what they are asked for, all the same thing at the same time; idle else.

    Args:
        name: one of `CONTESTANTS`; the tasks of those called x2 are shared by two processes.
        device: where they compute, by torch's name.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        self.name, self.size = name, 2 if name.startswith("x2") else 1
        self.folder = tempfile.TemporaryDirectory(prefix="metarun-bench-")
        self.processes, self.pipes = [], []
        for rank in range(self.size):
            ours, theirs = FORKS.Pipe()
            shared = (rank, self.size, f"{self.folder.name}/store")
            process = FORKS.Process(target=main, args=(theirs, name, device, *shared), daemon=True)
            process.start()
            theirs.close()
            self.processes.append(process)
            self.pipes.append(ours)

    def ready(self) -> None:
        """Wait until what it needs is imported. Raises: Refused if that is not installed."""
        self.threads = sum(told["threads"] for told in self._answers())

    def does(self, setting: Setting) -> bool:
        """Whether it is worth asking for."""
        if setting.algo == "sampling":
            return self.name in ("learn2learn", "metarun")
        if self.name.startswith("learn2learn") and setting.tasks > ONE_BY_ONE:
            return False
        if self.name == "torchopt":
            return (setting.algo, setting.use) == ("maml", "train")
        return self.name != JAX or (setting.algo, setting.data) in {("maml", "given"), ("fomaml", "given")}

    def ask(self, do: str, **how: Any) -> list[dict[str, Any]]:
        """What each process answers. Raises: Refused."""
        for pipe in self.pipes:
            pipe.send({"do": do, **how})
        return self._answers()

    def prepare(self, setting: Setting) -> dict[str, Any]:
        """Build a setting; scores are the means of the processes' shares."""
        told = self.ask("prepare", setting=setting)
        scores = {name: statistics.mean(one["scores"][name] for one in told) for name in told[0]["scores"]}
        return told[0] | {"scores": scores}

    def memory(self) -> float | None:
        """MiB of all processes together."""
        mib = [one["mib"] for one in self.ask("memory")]
        return None if None in mib else round(sum(mib), 1)

    def peak(self) -> float:
        """GFLOP/s of all processes together."""
        return round(sum(one["gflops"] for one in self.ask("peak")), 1)

    def end(self) -> None:
        """Whatever it is doing."""
        for process in self.processes:
            process.kill()
            process.join()
        self.folder.cleanup()

    def _answers(self) -> list[dict[str, Any]]:
        try:
            told = [pipe.recv() for pipe in self.pipes]
        except EOFError:
            raise Refused(f"{self.name}: its process has ended") from None
        for one in told:
            if "error" in one:
                raise Refused(f"{self.name}: {one['error']}")
        return told
