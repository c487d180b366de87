"""What a person typed cannot be run."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class ConfigError(ValueError):
    """The settings or the input are wrong; the message says what to type instead. Exit code 2."""


class Refused(KeyboardInterrupt):
    """A ConfigError from inside Hydra, which takes exceptions of callbacks for warnings, and of jobs for failures."""

    exit_code = 2


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the known word nearest to `word`, or nothing."""
    known = list(known)
    close = difflib.get_close_matches(word, known, 1, 0.5)
    if not close:  # the last part alone may be what was mistyped or misplaced
        tails = {name.split(".")[-1]: name for name in known}
        close = [tails[tail] for tail in difflib.get_close_matches(word.split(".")[-1], tails, 1, 0.6)]
    return f"; did you mean {close[0]}?" if close else ""


@contextmanager
def wrong_input() -> Iterator[None]:
    """Inside, a ValueError is the doing of the person who typed the settings."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
