"""A source whose training tasks are few and come again: to learn them by heart, or as a fixed training set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from metarun.core.tasks import Batch, Examples, Pairs


class FewTasks:
    """Yields the first tasks of another source's training stream again and again; all else is that source's.

    Args:
        source: the other source.
        n_tasks: how many tasks there are, >= 1, or examples for learners that are trained on these. They come in whole
            batches, at least one.
    """

    def __init__(self, source: Any, n_tasks: int) -> None:
        self.source, self.n_tasks = source, n_tasks

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Batch]:
        return self._repeat(self.source.episodes, split, first, batch_size)

    def examples(self, split: str, first: int, batch_size: int) -> Iterator[Examples]:
        return self._repeat(self.source.examples, split, first, batch_size)

    def pairs(self, split: str, first: int, batch_size: int) -> Iterator[Pairs]:
        return self._repeat(self.source.pairs, split, first, batch_size)

    def _repeat(self, draw: Any, split: str, first: int, batch_size: int) -> Iterator[Any]:
        if split != "train":
            yield from draw(split, first, batch_size)
        batches, at = max(1, self.n_tasks // batch_size), first // batch_size
        while True:
            yield next(draw(split, at % batches * batch_size, batch_size))
            at += 1
