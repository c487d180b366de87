"""Standard output and error that outlive whoever reads them: a closed pipe, a full disk, a terminal that is gone."""

from __future__ import annotations

import codecs
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

PLAIN = {"±": "+-", "×": "x", "µ": "u", "…": "...", "–": "-", "—": "-"}
"""Letters of our own for streams whose encoding lacks them; all other letters become a question mark there."""


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class LastingStream:
    """A text stream that falls silent, and raises nothing, once it cannot be written to."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError as error:
            self._fall_silent(error)
        return len(text)

    def writelines(self, lines: Any) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._fall_silent(error)

    def _fall_silent(self, error: OSError) -> None:
        """Lead the file nowhere, so that neither other programs' text nor Python's last flush meets the error again."""
        if isinstance(error, BlockingIOError):  # a reader that is slow, not gone
            return
        self.lost = self.lost or error
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def find_cut() -> str | None:
    """Say why there was no room for all that went to standard output; None if there was, or nobody reads it."""
    if not isinstance(sys.stdout, LastingStream):
        return None
    sys.stdout.flush()
    lost = sys.stdout.lost
    return lost.strerror if lost and lost.errno in NO_ROOM else None


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Inside, nothing that is printed raises: neither for want of a reader or of room, nor for its letters."""
    before = sys.stdout, sys.stderr
    codecs.register_error("metarun.plain", _replace)
    sys.stdout, sys.stderr = map(_make_lasting, before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # closed before the program began
                stream.flush()
        sys.stdout, sys.stderr = before


def _make_lasting(stream: Any) -> Any:
    if stream is None or isinstance(stream, LastingStream):
        return stream
    if hasattr(stream, "reconfigure"):
        with suppress(OSError):  # it flushes
            stream.reconfigure(errors="metarun.plain")
    return LastingStream(stream)


def _replace(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(PLAIN.get(letter, "?") for letter in error.object[error.start : error.end]), error.end
