"""What the program says: on the screen, and into run.log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.text import Text


def console(quiet: bool = False) -> Console:
    """Standard output; wide where it is not a terminal."""
    screen = Console(highlight=False, quiet=quiet)
    return screen if screen.is_terminal else Console(highlight=False, quiet=quiet, width=120)


def open_log(path: Path) -> logging.Handler:
    """Open run.log, which gets every message."""
    file = LogFile(path)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return file


class LogFile(logging.FileHandler):
    """A file of messages, without those that a full disk has no room for."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


@contextmanager
def messages(screen: Console) -> Iterator[None]:
    """Inside, what the program has to say goes to the screen."""
    handler = Shown(screen)
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


class Shown(logging.Handler):
    """Prints metarun's own messages, tracebacks aside."""

    def __init__(self, screen: Console) -> None:
        super().__init__()
        self.screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("metarun") and record.exc_info is None:
            self.screen.print(Text(record.getMessage()))
