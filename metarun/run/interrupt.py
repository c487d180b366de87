"""Signals, and a file, as a request to stop at the next safe moment."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

REQUEUE: signal.Signals | None = getattr(signal, "SIGUSR2", None)  # Windows has none
"""What submitit takes as: your time is up, make room and come back."""

STOP_FILE = ".stop"
"""In a sweep's folder: its jobs stop, and none starts. A file reaches jobs in other containers and machines."""


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to stop, and it did, with everything saved."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum

    def __reduce__(self) -> tuple[type[Interrupted], tuple[int]]:
        return Interrupted, (self.exit_code - 128,)  # as it comes back from a launcher's process


class StopRequest:
    """What asked to stop, if anything: a signal, or that `file` is there, which counts as SIGINT."""

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
        """Whether a checkpoint was asked for since the last call."""
        asked, self.save = self.save, False
        return asked


@contextmanager
def stop_requests(file: Path | None = None) -> Iterator[StopRequest]:
    """Inside, the first SIGINT or SIGTERM is only noted, and so is that `file` appears; a second acts as usual.

    Where a launcher requeues on SIGUSR2, that signal asks to stop as well, and the caller hands it on. SIGTERM is
    there a warning that may precede it or a kill: a checkpoint is asked for, and the run goes on.
    """
    request = StopRequest(file)
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    requeues = False
    if REQUEUE is not None and (requeues := callable(handler := signal.getsignal(REQUEUE))):
        before[REQUEUE] = handler

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


def hand_on(signum: int, launched: bool) -> None:
    """What follows the end of a job of a sweep by a signal.

    In the process that runs the whole sweep, the sweep ends too. In one that a launcher made for the job, the others
    go on, and a launcher that requeues takes over.
    """
    if not launched:
        print("the sweep stopped; the same command goes on with it")
        raise Interrupted(signum)
    if signum == REQUEUE:
        signal.raise_signal(signum)
