"""Strikes a command at one of its operations on files: it dies there, or the disk is full from there on.

`arm` counts what a command opens for writing, renames, links, removes and makes in the folder where it was started and
in the cache; Python tells of each just before it is done. Other processes that the command starts are not counted.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
from typing import Any

CHANGES = ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir")
NEEDS_ROOM = ("open", "os.link", "os.mkdir")
DIARY = ".operations"
"""In the folder: the operations, one a line, up to the one that was struck."""


def arm(fault: str) -> None:
    """Have this process struck.

    Args:
        fault: `kill N WORD` dies before the N-th operation whose line has the word, from 0 on; without a word they all
            count. `full N WORD` has no room from that one on, `short N WORD` for that one alone. `limit BYTES` lets no
            file be longer. `none` only writes the operations down.
    """
    what, number, word = (*fault.split(" ", 2), "", "")[:3]
    if what == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(number), resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return
    root = os.getcwd() + os.sep
    roots = (root, os.environ["METARUN_CACHE"])
    diary = os.open(DIARY, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    seen = 0

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if not (event in CHANGES or (event == "open" and _writes(*arguments[1:3]))):
            return
        paths = [os.path.abspath(os.fsdecode(a)) for a in arguments[:2] if isinstance(a, (str, bytes, os.PathLike))]
        names = [path.removeprefix(root) for path in paths if path.startswith(roots)]
        if not names:
            return
        line = f"{event} {' '.join(names)}".replace(str(os.getpid()), "PID")
        os.write(diary, f"{line}\n".encode())
        if word in line:
            seen += 1
            if what == "kill" and seen == int(number) + 1:
                os.kill(os.getpid(), signal.SIGKILL)
        struck = seen > int(number or 0) and (what == "full" or (what == "short" and seen == int(number) + 1))
        if struck and event in NEEDS_ROOM and (what == "full" or word in line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), names[-1])

    sys.addaudithook(hear)


def _writes(mode: str | None, flags: int) -> bool:
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) if isinstance(flags, int) else (mode or "r")[0] != "r"
