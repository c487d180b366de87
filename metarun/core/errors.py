"""Errors that a user can mend: wrong settings or input, with a message that says what to type instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class ConfigError(ValueError):
    """The settings or the input are wrong. The message says what to type instead. Exit code 2."""


class Refused(KeyboardInterrupt):
    """A ConfigError inside Hydra.

    Hydra turns other exceptions of callbacks into warnings, and those of jobs into failures.
    """

    exit_code = 2


def suggest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` with the known word nearest to `word`, or an empty string if none is near."""
    known = list(known)
    close = difflib.get_close_matches(word, known, 1, 0.5)
    if not close:  # only the last part may be right, or wrong
        tails = {name.split(".")[-1]: name for name in known}
        close = [tails[tail] for tail in difflib.get_close_matches(word.split(".")[-1], tails, 1, 0.6)]
    return f"; did you mean {close[0]}?" if close else ""


@contextmanager
def wrong_input() -> Iterator[None]:
    """Turn a ValueError inside the context into a ConfigError: the settings caused it."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
