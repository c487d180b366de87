"""Errors that a user can mend: wrong settings or input, with a message that says what to type instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager


class ConfigError(ValueError):
    """The settings or the input are wrong. The message says what to type instead. Exit code 2."""


class Refused(KeyboardInterrupt):
    """A ConfigError inside Hydra.

    Hydra turns other exceptions of callbacks into warnings, and those of jobs into failures.
    """

    exit_code = 2


MANY = 12
"""Choices beyond which a message that suggests one names no other."""


def suggest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` with the known word nearest to `word`, or an empty string if none is near."""
    close = find_nearest(word, list(known))
    return f"; did you mean {close}?" if close else ""


def name_choices(word: str, known: Sequence[str], group: str) -> str:
    """Return what may be typed in place of `word`: the nearest choice of the group, and all of them if they are few."""
    near = suggest(word, known)
    if near and len(known) > MANY:
        return f"{near} metarun help {group} lists all {len(known)}"
    return f"{near}; choices are {', '.join(known)}" if known else near


def find_nearest(word: str, known: Sequence[str]) -> str | None:
    """Find the known word that `word` was most likely meant to be; None where all are too unlike.

    Of a dotted word, first those in the same group whose last part is near, then those with the same last part.
    """
    group, _, tail = word.rpartition(".")
    inside = [name for name in known if name.rpartition(".")[0] == group]
    tails = {name.rpartition(".")[2]: name for name in (inside if group else known)}
    if group and tail in (near := {name.rpartition(".")[2]: name for name in reversed(known)}):
        return near[tail]
    for asked, names, likeness in ((tail, tails, 0.66), (word, {name: name for name in known}, 0.75)):
        if close := difflib.get_close_matches(asked, names, 1, likeness):
            return names[close[0]]
    parts = [name for last, name in tails.items() if tail in last.split("_")]  # lr, of inner_lr
    return parts[0] if parts and len(tail) > 1 else None


@contextmanager
def wrong_input() -> Iterator[None]:
    """Turn a ValueError inside the context into a ConfigError: the settings caused it."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
