from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarun.core.batches import as_batch
from metarun.core.episodes import EpisodeIndices, iterate_places
from metarun.core.tasks import Batch, Examples, SourceInfo
from metarun.data.augment import Look
from metarun.data.device import to_device

MAX_BYTES = 2**31
"""Bytes that the embeddings may take."""

IMAGES_AT_ONCE = 256
"""Images that are embedded together."""


class DrawnImages(Protocol):
    """What Embedded needs of the source of the images; metarun/data/images.py documents the methods."""

    info: SourceInfo
    look: Look

    def draw_episodes(self, split: str, indices: NDArray[np.int64]) -> list[tuple[EpisodeIndices, int]]: ...

    def find_rows(self, split: str) -> NDArray[np.int64]: ...

    def count_turns(self, split: str) -> int: ...

    def place_images(
        self, split: str, drawn: EpisodeIndices, images: NDArray[np.int64], y: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...

    def gather_images(self, rows: NDArray[np.int64], turn: NDArray[np.int64]) -> Tensor: ...

    def describe_tasks(self, split: str, drawn: EpisodeIndices) -> dict[str, Tensor]: ...

    def fingerprint(self, split: str, n_tasks: int) -> str: ...


class Embedded:
    """The tasks of a split with each image replaced by its embedding. Each image is embedded once for all tasks.

    Shapes: x [B, S, ...] where the embedding of one image has the shape [...].
    Args:
        source: the source of the images.
        split: val or test.
        encode: makes embeddings [R, ...] from images [R, C, H, W]; no image may influence another's embedding.
    Raises: MemoryError if embeddings would take more than `MAX_BYTES` bytes; that shows after the first few images.
    """

    def __init__(self, source: DrawnImages, split: str, encode: Callable[[Tensor], Tensor]) -> None:
        self.source, self.info = source, source.info
        self.rows = source.find_rows(split)
        self.places = np.zeros(int(self.rows.max()) + 1, np.int64)  # of image rows in the table
        self.places[self.rows] = np.arange(len(self.rows))
        n = len(self.rows) * source.count_turns(split)  # image row r in turn t is embedding t * len(rows) + r
        self.table = torch.empty(0)
        for first in range(0, n, IMAGES_AT_ONCE):
            turn, place = np.divmod(np.arange(first, min(first + IMAGES_AT_ONCE, n)), len(self.rows))
            embedded = encode(source.look(source.gather_images(self.rows[place], turn), None))
            if not first:
                if embedded[0].nbytes * n > MAX_BYTES:
                    raise MemoryError(f"{n} embeddings of {tuple(embedded.shape[1:])} numbers")
                self.table = embedded.new_empty(n, *embedded.shape[1:])
            self.table[first : first + IMAGES_AT_ONCE] = embedded

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Any]:
        for places in iterate_places(first, batch_size):
            yield as_batch([self._gather(split, *part) for part in self.source.draw_episodes(split, places)])

    def fingerprint(self, split: str, n_tasks: int) -> str:
        return self.source.fingerprint(split, n_tasks)

    def _gather(self, split: str, drawn: EpisodeIndices, n_way: int) -> Batch:
        sides = (drawn.support, drawn.support_y), (drawn.query, drawn.query_y)
        support, query = (self._side(*self.source.place_images(split, drawn, *side), side[1]) for side in sides)
        return Batch(support, query, n_way, self.source.describe_tasks(split, drawn))

    def _side(self, rows: NDArray[np.int64], turn: NDArray[np.int64], y: NDArray[np.int64]) -> Examples:
        number = turn * len(self.rows) + self.places[rows]  # [B, S]
        device = self.table.device
        x = self.table.index_select(0, to_device(number.ravel(), device))  # faster than by brackets
        return Examples(x.view(*number.shape, *x.shape[1:]), to_device(y, device))
