"""Files that are written beside a run's own: not before the command that draws them is accepted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from metarun.core.errors import wrong_input

Write = Callable[[], None]

_waiting: list[Write] | None = None


@contextmanager
def postponed(by_another: bool = False) -> Iterator[None]:
    """Inside, what `write_later` is given waits for the end of the context; after an error it is not written.

    Args:
        by_another: another process writes the same, and this one nothing.
    Raises: ConfigError for a ValueError of what is written.
    """
    global _waiting
    before, waiting = _waiting, list[Write]()
    _waiting = waiting
    try:
        yield
    finally:
        _waiting = before
    if not by_another:
        with wrong_input():
            for write in waiting:
                write_later(write)


def write_later(write: Write) -> None:
    """Call `write` once what is around is accepted, see `postponed`; at once where nothing is."""
    if _waiting is None:
        write()
    else:
        _waiting.append(write)
