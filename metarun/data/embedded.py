from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarun.core.episodes import EpisodeIndices
from metarun.core.tasks import Batch, Examples, SourceInfo
from metarun.data.augment import Look
from metarun.data.device import on_device

LARGEST = 2**31
"""Bytes that the embeddings may take."""

AT_ONCE = 256
"""Images embedded together."""


class DrawnImages(Protocol):
    """What is asked of the source whose images are embedded, see metarun/data/images.py."""

    info: SourceInfo
    look: Look

    def drawn(self, split: str, indices: NDArray[np.int64]) -> tuple[EpisodeIndices, int]: ...

    def rows_of(self, split: str) -> NDArray[np.int64]: ...

    def turns_of(self, split: str) -> int: ...

    def placed(
        self, split: str, drawn: EpisodeIndices, images: NDArray[np.int64], y: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...

    def pictures(self, rows: NDArray[np.int64], turn: NDArray[np.int64]) -> Tensor: ...

    def fingerprint(self, split: str, n_tasks: int) -> str: ...


class Embedded:
    """The tasks of a split of images with each image's embedding in its place, made once for all tasks.

    Shapes: x [B, S, ...] for embeddings [...] of one image.
    Args:
        source: of the images.
        split: val or test.
        encode: from images [R, C, H, W] to embeddings [R, ...], each by itself.
    Raises: MemoryError, before much is done, if embeddings would take more than `LARGEST` bytes.
    """

    def __init__(self, source: DrawnImages, split: str, encode: Callable[[Tensor], Tensor]) -> None:
        self.source, self.info = source, source.info
        self.rows = source.rows_of(split)
        n = len(self.rows) * source.turns_of(split)
        self.table = torch.empty(0)
        for first in range(0, n, AT_ONCE):
            turn, place = np.divmod(np.arange(first, min(first + AT_ONCE, n)), len(self.rows))
            embedded = encode(source.look(source.pictures(self.rows[place], turn), None))
            if not first:
                if embedded[0].nbytes * n > LARGEST:
                    raise MemoryError(f"{n} embeddings of {tuple(embedded.shape[1:])} numbers")
                self.table = embedded.new_empty(n, *embedded.shape[1:])
            self.table[first : first + AT_ONCE] = embedded

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Batch]:
        while True:
            drawn, n_way = self.source.drawn(split, np.arange(first, first + batch_size))
            sides = (drawn.support, drawn.support_y), (drawn.query, drawn.query_y)
            support, query = (self._side(*self.source.placed(split, drawn, *side), side[1]) for side in sides)
            yield Batch(support, query, n_way)
            first += batch_size

    def fingerprint(self, split: str, n_tasks: int) -> str:
        return self.source.fingerprint(split, n_tasks)

    def _side(self, rows: NDArray[np.int64], turn: NDArray[np.int64], y: NDArray[np.int64]) -> Examples:
        number = turn * len(self.rows) + np.searchsorted(self.rows, rows)
        device = self.table.device
        return Examples(self.table[on_device(number, device)], on_device(y, device))
