"""Forks commands for tests/commands.py from a process that has everything imported that a command imports.

Started with the number of a socket's file descriptor. A request is a line of JSON: {"fork": {arguments, cwd, env}},
with the files that become its standard output and error, is answered by the command's process id; {"wait": id} by its
exit code, negative where a signal ended it, once it has ended.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys


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
            return
        for file in files:
            os.close(file)
        connection.send(str(pid).encode())


def run(files: list[int], arguments: list[str], cwd: str, env: dict[str, str]) -> None:
    """Become the command; ends with SystemExit, as the console script does."""
    from metarun.cli import command

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
    sys.exit(command(arguments))


def import_all() -> None:
    """What a run, a sweep and the other commands import on their way, and what torch imports at first use."""
    import torch

    torch.set_num_threads(1)
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    import metarun.app.commands.subcommands
    import metarun.app.jobs.job
    import metarun.app.sweeps.search
    import metarun.app.sweeps.table  # noqa: F401


if __name__ == "__main__":
    sys.path.remove(os.path.dirname(os.path.abspath(__file__)))  # a command does not find the tests' modules
    import_all()
    serve(socket.socket(fileno=int(sys.argv[1])))
    os._exit(0)  # nothing is left to be cleaned up; a command has left serve with SystemExit
