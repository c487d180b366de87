"""The parent's end of a contestant: its process, or the processes that share its tasks."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from contestants.settings import Setting
from contestants.worker import CONTESTANTS

SCRIPTS = Path(__file__).resolve().parents[1]

JAX = "jax"


class Refused(RuntimeError):
    """A contestant cannot do what it was asked to."""


class Contestant:
    """Processes that do what they are asked for, all the same thing at the same time; idle else.

    Args:
        name: one of `CONTESTANTS`; the tasks of those called x2 are shared by two processes.
    """

    def __init__(self, name: str) -> None:
        self.name, self.size = name, 2 if name.startswith("x2") else 1
        self.file = Path(tempfile.mkdtemp(prefix="metarun-bench-")) / "store"
        threads = CONTESTANTS[name][1]
        env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        env |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
        path = os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, "-W", "ignore", "-m", "contestants.worker", name]
        self.processes = [
            subprocess.Popen(
                [*command, str(rank), str(self.size), str(self.file)],
                env=env | {"PYTHONPATH": path}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                stderr=None if os.environ.get("BENCH_DEBUG") else subprocess.DEVNULL,
            )
            for rank in range(self.size)
        ]  # fmt: skip

    def ready(self) -> None:
        """Wait until what it needs is imported. Raises: Refused if that is not installed."""
        self.threads = sum(told["threads"] for told in self._answers())

    def does(self, setting: Setting) -> bool:
        """Whether it is worth asking for."""
        if setting.algo == "sampling":
            return self.name in ("learn2learn", "metarun")
        return self.name != JAX or (setting.algo, setting.data) in {("maml", "given"), ("fomaml", "given")}

    def ask(self, do: str, **how: Any) -> list[dict[str, Any]]:
        """What each process answers. Raises: Refused."""
        for process in self.processes:
            assert process.stdin
            process.stdin.write(json.dumps({"do": do, **how}) + "\n")
            process.stdin.flush()
        return self._answers()

    def prepare(self, setting: Setting) -> dict[str, Any]:
        """Build a setting; scores are the means of the processes' shares."""
        told = self.ask("prepare", setting=vars(setting))
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
            process.communicate()
        self.file.unlink(missing_ok=True)
        self.file.parent.rmdir()

    def _answers(self) -> list[dict[str, Any]]:
        told = []
        for process in self.processes:
            assert process.stdout
            line = process.stdout.readline()
            if not line:
                raise Refused(f"{self.name}: its process ended with {process.wait()}; BENCH_DEBUG=1 shows why")
            told.append(json.loads(line))
        for one in told:
            if "error" in one:
                raise Refused(f"{self.name}: {one['error']}")
        return told
