"""Requests to stop at the next safe moment, by a signal or by a file."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, `kill`, and a terminal that is gone, as with a lost ssh."""

REQUEUE_SIGNAL: signal.Signals | None = getattr(signal, "SIGUSR2", None)  # Windows has none
"""The signal by which submitit tells a job that its time is up and that it will be requeued."""

STOP_FILE = ".stop"
"""A file in a sweep's folder that stops its jobs and keeps others from starting.

It also reaches jobs in other containers and on other machines.
"""


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to stop, and it did, with everything saved."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum

    def __reduce__(self) -> tuple[type[Interrupted], tuple[int]]:
        return Interrupted, (self.exit_code - 128,)  # a launcher's process pickles it


class StopRequest:
    """Knows whether a signal asked to stop, or `file` exists, which counts as SIGINT."""

    def __init__(self, file: Path | None = None) -> None:
        self.signum: int | None = None
        self.file = file
        self.save = False

    @property
    def made(self) -> bool:
        if self.signum is None and self.file is not None and self.file.exists():
            self.signum = signal.SIGINT
        return self.signum is not None

    def raise_if_made(self) -> None:
        if self.made:
            assert self.signum is not None
            raise Interrupted(self.signum)

    def take_save(self) -> bool:
        """Return whether a checkpoint was asked for since the last call."""
        asked, self.save = self.save, False
        return asked


@contextmanager
def stop_requests(file: Path | None = None) -> Iterator[StopRequest]:
    """Inside, the first of STOP_SIGNALS, or the appearance of `file`, is only noted; a second signal acts as usual.

    A SIGHUP that is ignored, as under `nohup`, stays so.
    If a launcher requeues on SIGUSR2, that signal asks to stop as well, and the caller hands it on. SIGTERM is then
    only a warning before that signal or a kill: it asks for a checkpoint, and the run goes on.
    """
    request = StopRequest(file)
    before = find_handlers()
    requeues = False
    if REQUEUE_SIGNAL is not None and (requeues := callable(handler := signal.getsignal(REQUEUE_SIGNAL))):
        before[REQUEUE_SIGNAL] = handler

    def note(signum: int, frame: FrameType | None) -> None:
        if requeues and signum == signal.SIGTERM:
            request.save = True
            return
        request.signum = signum
        signal.signal(signum, before[signal.Signals(signum)])

    for s in before:
        signal.signal(s, note)
    try:
        yield request
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def find_handlers() -> dict[signal.Signals, Any]:
    """Find who gets STOP_SIGNALS now, but for a SIGHUP that `nohup` has taken away."""
    found = {signum: signal.getsignal(signum) for signum in STOP_SIGNALS}
    return {
        signum: handler for signum, handler in found.items() if signum.name != "SIGHUP" or handler != signal.SIG_IGN
    }


def hand_on(signum: int, launched: bool) -> None:
    """Hand on a signal that ended a job of a sweep.

    In the process of the whole sweep, the sweep ends too. In a process that a launcher made for the job, the other jobs
    go on, and a launcher that requeues gets the signal.
    """
    if not launched:
        print("the sweep stopped; the same command goes on with it")
        raise Interrupted(signum)
    if signum == REQUEUE_SIGNAL:
        signal.raise_signal(signum)
