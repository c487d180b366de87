"""The folder of a run, held by one process; a run that is refused leaves nothing there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import MemoryHandler
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from metarun.app.messages import Shown, open_log
from metarun.core.errors import ConfigError
from metarun.core.run_folder import RunFolder
from metarun.core.screen import Screen

MANY = 1_000_000
"""Messages that wait for a run to be accepted."""


class Claim:
    """Holds a run's folder, within a `with`; the lock dies with the process.

    The run's settings, run.log and results are written, or taken away, by `accept` and not before. Messages go to the
    screen at once; `accept` writes them to run.log, and later ones follow there.

    Args:
        folder: the run's.
        screen: shows the program's own messages.
        write_settings: writes the settings of a new run.
    """

    def __init__(self, folder: Path, screen: Screen, write_settings: Callable[[], None]) -> None:
        self.files, self.write_settings, self.accepted = RunFolder(folder), write_settings, False
        self.own = not self.files.lock.exists()
        self.lock = FileLock(self.files.lock, timeout=0)
        self.early = MemoryHandler(MANY, flushLevel=logging.CRITICAL + 1)
        self.handlers: list[logging.Handler] = [Shown(screen), self.early]

    def __enter__(self) -> Claim:
        self.files.lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.lock.acquire()
        except Timeout as error:
            raise ConfigError(f"another process is running {self.files.path}") from error
        root = logging.getLogger()
        root.setLevel(logging.INFO)
        for handler in self.handlers:
            root.addHandler(handler)
        return self

    def accept(self) -> None:
        """Let the run begin or continue: write its settings if they are missing, and remove older results.

        Files that killed processes of the run had begun to write are removed too: whoever holds the lock is the only
        one that writes here.

        Raises: OSError if the folder cannot be written.
        """
        if self.accepted:
            return
        self.write_settings()
        self.files.results.unlink(missing_ok=True)
        for path in self.files.list_unfinished():
            path.unlink()
        log = open_log(self.files.log)
        self.early.setTarget(log)
        self.early.flush()
        logging.getLogger().addHandler(log)
        logging.getLogger().removeHandler(self.early)
        self.handlers.append(log)
        self.accepted = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handler in self.handlers:
            logging.getLogger().removeHandler(handler)
            handler.close()
        self.lock.release()
        if self.own and not self.accepted:
            self.files.lock.unlink(missing_ok=True)
            remove_empty(self.files.lock.parent)


def remove_empty(folder: Path, top: Path | None = None) -> None:
    """Remove the folder if it is empty, and then its parents up to `top` as long as they are empty too."""
    with suppress(OSError):
        folder.rmdir()
        while top and folder != top:
            folder = folder.parent
            folder.rmdir()
