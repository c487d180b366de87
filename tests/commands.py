"""The command line as a person uses it, each command a process of its own, and what it leaves in its folder.

A command is forked from a process that has imported torch and metarun, so that it starts in a twentieth of a second
and not in five. It is a process like any other: with its own arguments, environment, folder, output, signals and exit
code. `fresh=True` starts Python anew, for the tests of the start itself.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

import pytest
from conftest import SMALL

TINY = [*SMALL, "backbone.hidden=8", "logger=none"]
SERVER = Path(__file__).with_name("command_server.py")


class Command:
    """A command that was started; as much of subprocess.Popen as tests need."""

    def __init__(
        self, arguments: list[str], cwd: Path, env: dict[str, str], out: int | None, warm: tuple[str, ...]
    ) -> None:
        self.args, self.returncode, self.server = arguments, None, _server(warm)
        self.out: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.error: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115
        request = {"fork": {"arguments": arguments, "cwd": str(cwd), "env": env}}
        streams = [self.out.fileno(), self.error.fileno()] if out is None else [out, out]
        self.pid: int = _ask(self.server, request, streams)
        self._ended = os.pidfd_open(self.pid)

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        return self.wait(0) if self.returncode is not None or select.select([self._ended], [], [], 0)[0] else None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended. Raises: subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = _ask(self.server, {"wait": self.pid})
            os.close(self._ended)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that it wrote to standard output and standard error, once it has ended."""
        self.wait(timeout)
        for file in (self.out, self.error):
            file.seek(0)
        return self.out.read(), self.error.read()

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


Process = Command | subprocess.Popen[str]


@functools.cache
def _server(warm: tuple[str, ...] = ()) -> socket.socket:
    """The connection to the process that forks commands; it ends when this one does."""
    here, there = socket.socketpair()
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(SERVER), str(there.fileno()), *warm]
    process = subprocess.Popen(words, pass_fds=[there.fileno()], env=env)
    there.close()

    def end() -> None:
        here.close()
        process.wait(10)

    atexit.register(end)
    return here


def _ask(server: socket.socket, request: dict[str, Any], files: list[int] | None = None) -> int:
    socket.send_fds(server, [json.dumps(request).encode() + b"\n"], files or [])
    answer = server.recv(64)
    assert answer, "the process that forks commands has ended"
    return int(answer)


def start(
    *arguments: str | Path,
    cwd: Path,
    cache: Path,
    fresh: bool = False,
    out: int | None = None,
    warm: tuple[str, ...] = (),
    **environment: str | None,
) -> Process:
    """A running `metarun` with these arguments, in the folder `cwd`.

    Args:
        out: an open file for all that it prints.
        warm: a command that the process which forks it has done before, so that it starts sooner.
    """
    env = {**os.environ, "METARUN_CACHE": str(cache), "COLUMNS": "200", "OMP_NUM_THREADS": "1", **environment}
    env = {name: value for name, value in env.items() if value is not None}
    words = [str(word) for word in arguments]
    if not fresh:
        return Command(words, cwd, env, out, warm)
    return subprocess.Popen(
        [sys.executable, "-m", "metarun", *words],
        cwd=cwd, env=env, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )  # fmt: skip


def metarun(
    *arguments: str | Path, cwd: Path, cache: Path, fresh: bool = False, **environment: str | None
) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a finished command."""
    process = start(*arguments, cwd=cwd, cache=cache, fresh=fresh, **environment)
    try:
        out, error = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()  # which would go on beside the other tests
        raise
    return process.returncode, out, error


def results_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "tasks_per_second")} for line in lines]


def jobs_of(root: Path) -> list[Path]:
    """The folders of all jobs of all sweeps under `root`."""
    return sorted(path.parent.parent for path in root.glob("outputs/sweeps/*/*/.hydra/overrides.yaml"))


def wait_for_step(folder: Path, step: int, process: Process) -> None:
    for _ in range(6000):
        assert process.poll() is None, process.communicate()
        path = folder / "metrics.jsonl"
        steps = [json.loads(line)["step"] for line in path.read_text().splitlines()[:-1]] if path.exists() else []
        if steps and steps[-1] >= step:
            return
        time.sleep(0.01)
    pytest.fail(f"step {step} was never reached")


def stop_and_resume(*words: str, steps: int, folder: Path, cache: Path, more: tuple[str, ...] = ()) -> None:
    """Run `words` for so many steps, stop it by SIGTERM once three are logged, and resume it with the words `more`."""
    process = start(*words, f"run.steps={steps}", f"hydra.run.dir={folder.name}", cwd=folder.parent, cache=cache)
    wait_for_step(folder, 3, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert 3 <= results_of(folder)["steps"] < steps
    assert metarun("resume", folder.name, *more, cwd=folder.parent, cache=cache)[0] == 0
