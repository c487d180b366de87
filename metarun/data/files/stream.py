"""What can only be read from its beginning to its end, for threads that ask for it almost in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

KEPT = 64
"""Items behind the last one that are kept until they are asked for: more than threads decode images."""


class Stream(Generic[T]):
    """Items number 0, 1, ... of something that is read in order, each to be asked for once.

    It is begun again for one that was asked for before, or that is too far behind.

    Args:
        begin: begins to read.
        size: number of items; after the last of them what was opened is let go.
    """

    def __init__(self, begin: Callable[[], Iterator[T]], size: int) -> None:
        self._begin, self._size = begin, size
        self._items: Iterator[T] | None = None
        self._kept: dict[int, T] = {}
        self._next = 0
        self._broken: Exception | None = None
        self._lock = threading.Lock()

    def get(self, number: int) -> T:
        with self._lock:
            if number not in self._kept and (number < self._next or self._items is None):
                self._items, self._next, self._broken = self._begin(), 0, None
                self._kept.clear()
            while number not in self._kept:
                self._kept[self._next] = self._read_next()
                self._kept.pop(self._next - KEPT, None)
                self._next += 1
                if self._next == self._size:
                    self._items = None
            return self._kept.pop(number)

    def _read_next(self) -> T:
        """Read the item that follows. What keeps it from being read keeps all items behind it from that, too."""
        if self._broken is None:
            assert self._items is not None
            try:
                return next(self._items)
            except StopIteration:
                self._broken = ValueError(f"there are {self._next} of {self._size}")
            except Exception as error:
                self._broken = error
        raise self._broken
