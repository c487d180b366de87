"""A sink whose failure ends no run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metarun.run.tracking.sink import NoSink, RunInfo, Sink

log = logging.getLogger(__name__)


class GuardedSink:
    """Hands everything to another sink until that fails, which is told in a line; the run goes on without it.

    Sinks speak to servers and other programs, which may fail in any way: whatever they raise is caught here, and its
    traceback is in run.log. A sink of one's own may leave out the attributes.

    Args:
        make: makes the sink. Raises: ValueError where the settings are wrong, which is passed on.
        info: facts of the run.
    """

    def __init__(self, make: Callable[[], Sink], info: RunInfo) -> None:
        self.nothing = NoSink(info)
        self.sink: Sink = self.nothing
        try:
            self.sink = make()
        except ValueError:
            raise
        except Exception as error:
            self._drop("cannot start", error)

    @property
    def shows(self) -> bool:
        return bool(getattr(self.sink, "shows", False))

    @property
    def id(self) -> str | None:
        return getattr(self.sink, "id", None)

    @property
    def notes(self) -> Sequence[str]:
        return getattr(self.sink, "notes", None) or ()

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        self._try(lambda: self.sink.log(step, split, metrics))

    def show(self, name: str, file: Path) -> None:
        self._try(lambda: self.sink.show(name, file))

    def finish(self, results: Mapping[str, Any], exit_code: int) -> None:
        self._try(lambda: self.sink.finish(results, exit_code))

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            self._drop("failed", error)

    def _drop(self, what: str, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        log.warning("the logger %s, and the run goes on without it: %s", what, text)
        log.info("the logger %s", what, exc_info=error)
        self.sink = self.nothing
