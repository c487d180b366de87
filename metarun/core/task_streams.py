"""Sources whose tasks come one after the other, each with classes of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from metarun.core.tasks import Batch, ExampleSource


@runtime_checkable
class StreamSource(ExampleSource, Protocol):
    """A source whose tasks also come in streams: one after the other, with classes that no earlier one had."""

    def streams(self, split: str, first: int, n_tasks: int, n_way: int) -> Iterator[Batch]:
        """Yield stream first, first + 1, ... of a split: its tasks in their order as one batch, of n_way classes each.

        The fact `classes` [T, N] of the batch holds the number of each class in the split, as in `examples`.
        Raises: ConfigError if the split has too few classes.
        """
        ...
