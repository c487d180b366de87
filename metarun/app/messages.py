"""What the program says: on the screen, and into run.log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

from metarun.core.run_folder import RunFolder


def console(quiet: bool = False) -> Console:
    """Standard output; wide where it is not a terminal."""
    screen = Console(highlight=False, quiet=quiet)
    return screen if screen.is_terminal else Console(highlight=False, quiet=quiet, width=120)


def start_logging(folder: Path, screen: Console) -> list[logging.Handler]:
    """Send metarun's messages to the screen and, with everything else, to run.log; returns what to remove again."""
    file = logging.FileHandler(RunFolder(folder).log)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    shown = Shown(screen)
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(file)
    root.addHandler(shown)
    return [file, shown]


def stop_logging(handlers: list[logging.Handler]) -> None:
    """Undo `start_logging`."""
    for handler in handlers:
        logging.getLogger().removeHandler(handler)
        handler.close()


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
