"""Command lines that the program prints, to be pasted into a shell."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence


def quote(word: object) -> str:
    """Quote one word for a shell; control characters, which a terminal would obey, are written as escapes.

    A path that begins with a dash would be taken for a flag.
    """
    text = f"./{word}" if isinstance(word, os.PathLike) and str(word).startswith("-") else str(word)
    if text.isprintable():
        return shlex.quote(text)
    escaped = "".join(map(_escape, text))
    return f"$'{escaped}'"


def join(words: Iterable[object]) -> str:
    """Join words to a command line."""
    return " ".join(map(quote, words))


def keep_last(overrides: Sequence[str]) -> list[str]:
    """Keep the last of several overrides of one key, with the + or ++ of the first."""
    kept: dict[str, str] = {}
    for override in overrides:
        key = find_key(override)
        first = kept.pop(key, override)
        plus = first[: len(first) - len(first.lstrip("+"))]
        kept[key] = plus + override if plus and override[:1] not in "+~" else override
    return list(kept.values())


def find_key(override: str) -> str:
    """Return the key of KEY=VALUE, +KEY=VALUE or ~KEY."""
    return override.partition("=")[0].lstrip("+~")


def _escape(letter: str) -> str:
    if letter in "\\'":
        return f"\\{letter}"
    if letter.isprintable():
        return letter
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogateescape"))  # as in a file's name
