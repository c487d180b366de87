"""What the program says: on the screen, and into run.log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from metarun.core.screen import Screen, clean
from metarun.core.secrets import mask

WIDTH_WITHOUT_TERMINAL = 120
"""Columns where there is no terminal."""


def make_console(quiet: bool = False) -> Screen:
    """Return standard output, wide if it is not a terminal."""
    return Screen(quiet=quiet, width=WIDTH_WITHOUT_TERMINAL)


def open_log(path: Path) -> logging.Handler:
    """Open run.log, which gets every message."""
    file = LogFile(path)
    file.setFormatter(CleanFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return file


class LogFile(logging.FileHandler):
    """A log file that leaves out messages for which a full disk has no room."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


@contextmanager
def show_messages(screen: Screen) -> Iterator[None]:
    """Inside the context, print the program's messages on the screen."""
    handler = Shown(screen)
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


class Shown(logging.Handler):
    """Prints metarun's own messages, without tracebacks; those of errors on standard error, as every command does."""

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self.screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("metarun") and record.exc_info is None:
            if record.levelno >= logging.ERROR:
                Screen(quiet=self.screen.quiet, stderr=True).complain(record.getMessage())
            else:
                self.screen.say(record.getMessage(), "yellow" if record.levelno == logging.WARNING else "")


class CleanFormatter(logging.Formatter):
    """Removes passwords, and control characters that a reader's terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        return mask(clean(super().format(record)))
