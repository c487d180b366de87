"""Forks commands for tests/commands.py from a process that has everything imported that a command imports.

Started with the number of a socket's file descriptor. A request is a line of JSON: {"fork": {arguments, cwd, env}},
with the files that become its standard output and error, is answered by the command's process id; {"wait": id} by its
exit code, negative where a signal ended it, once it has ended. What stands behind the number is a command that is done
first, so that the others start sooner. STRIKE in a command's environment is for strike.py.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
from contextlib import suppress
from typing import Any, NoReturn

import strike
from read_once import read_once


def serve(connection: socket.socket) -> None:
    """Answer requests until the other side is gone; in a forked command, run it and return."""
    while True:
        message, files, _, _ = socket.recv_fds(connection, 1 << 20, 2)
        if not message:
            return
        while not message.endswith(b"\n"):
            message += connection.recv(1 << 20)
        request = json.loads(message)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            connection.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        pid = os.fork()
        if pid == 0:
            connection.close()
            run(files, **request["fork"])
        for file in files:
            os.close(file)
        connection.send(str(pid).encode())


def run(files: list[int], arguments: list[str], cwd: str, env: dict[str, str]) -> None:
    """Become the command; never returns."""
    from metarun.cli import main
    from metarun.settings import names

    names.UNIQUE = secrets.token_hex(2)  # as each program has its own, for runs that start in the same second
    os.setsid()
    with open(os.devnull) as nothing:
        for file, number in zip((nothing.fileno(), *files), range(3), strict=True):
            os.dup2(file, number)
    for file in files:
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = ["metarun", *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if fault := os.environ.pop("STRIKE", None):
        strike.arm(fault)
    try:
        main()
    except SystemExit as done:
        end(int(done.code or 0))


def end(code: int) -> NoReturn:
    """Exit as Python does, but leave the memory to the system: torch takes a second to give it back."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(code)


def import_all() -> None:
    """What a run, a sweep and the other commands import on their way, and what torch imports at first use."""
    import torch

    torch.set_num_threads(1)
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    read_once()
    import altair  # noqa: F401
    import scipy.stats  # noqa: F401

    import metarun.app.commands.subcommands
    import metarun.app.jobs.job
    import metarun.app.sweeps.search
    import metarun.app.sweeps.table
    import metarun.report.figures.page
    import metarun.settings.compose

    with suppress(ImportError):
        import optuna  # noqa: F401
    metarun.settings.compose.compose(["seed=0", "optim.lr=0.1", "data.n_way=[5]"])  # Hydra's parser learns as it reads
    share_drawing_program()


def share_drawing_program() -> None:
    """Of the commands that are forked from here the first puts the program together that each page holds, in a second.

    The others read it in an unnamed file: a length, and the text once it is whole. It is not made here, for its maker
    starts threads, which a fork would lose.
    """
    import vl_convert

    make, kept = vl_convert.javascript_bundle, tempfile.TemporaryFile()  # noqa: SIM115

    def read_or_make(*asked: Any, **how: Any) -> str:
        fcntl.lockf(kept, fcntl.LOCK_EX)
        try:
            if not (length := int.from_bytes(os.pread(kept.fileno(), 8, 0), "little")):
                text = make(*asked, **how).encode()
                length = os.pwrite(kept.fileno(), text, 8)
                os.pwrite(kept.fileno(), length.to_bytes(8, "little"), 0)
            return os.pread(kept.fileno(), length, 8).decode()
        finally:
            fcntl.lockf(kept, fcntl.LOCK_UN)

    vl_convert.javascript_bundle = read_or_make


def warm_up(arguments: list[str]) -> None:
    """Do a command here, and forget it; on a CPU no thread stays that a fork would lose."""
    from hydra.core.global_hydra import GlobalHydra

    from metarun.cli import command

    before, here = dict(os.environ), os.getcwd()
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nothing:
        os.chdir(folder)
        sys.argv, streams = ["metarun"], (sys.stdout, sys.stderr)
        sys.stdout = sys.stderr = nothing
        code = command(arguments)
        sys.stdout, sys.stderr = streams
        os.chdir(here)
    assert code == 0, arguments
    GlobalHydra.instance().clear()
    os.environ.clear()
    os.environ.update(before)


if __name__ == "__main__":
    sys.path.remove(os.path.dirname(os.path.abspath(__file__)))  # a command does not find the tests' modules
    number, *warm = sys.argv[1:]
    import_all()
    if warm:
        warm_up(warm)
    gc.collect()
    gc.freeze()  # what all commands share is not looked through again in each
    serve(socket.socket(fileno=int(number)))
    os._exit(0)  # nothing is left to be cleaned up
