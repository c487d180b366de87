"""Images in the size, channels and normalisation that a network was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from metarun.core.tasks import Batch, EmbeddableSource, Examples, TaskSource
from metarun.data.augment import Look
from metarun.data.images import PLAIN


class Fitted:
    """The tasks of a source of images, as a network takes them that was trained on another source.

    Args:
        source: a source of images, or a union of such; its normalisation is taken from it if there is a `look`.
        shape: C, H, W of the network's inputs.
        look: normalises pixels in 0..1 in its place; None keeps the source's own.
    """

    def __init__(self, source: Any, shape: tuple[int, ...], look: Look | None) -> None:
        self.source, self.shape, self.look = source, shape, look
        if look:
            for member in members(source):
                member.look = PLAIN
        self.info = replace(source.info, input_shape=shape)

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Batch]:
        for batch in self.source.episodes(split, first, batch_size):
            yield Batch(self._side(batch.support), self._side(batch.query), batch.n_way)

    def embedded(self, split: str, encode: Callable[[Tensor], Tensor], n_tasks: int) -> TaskSource | None:
        if not isinstance(self.source, EmbeddableSource):
            return None
        return self.source.embedded(split, lambda x: encode(self._fitted(x[None])[0]), n_tasks)

    def fingerprint(self, split: str, n_tasks: int) -> str:
        found: str = self.source.fingerprint(split, n_tasks)
        return found

    def _side(self, side: Examples) -> Examples:
        return Examples(self._fitted(side.x), side.y)

    def _fitted(self, x: Tensor) -> Tensor:
        x = fitted(x, self.shape)
        return self.look.normalised(x.contiguous()) if self.look else x  # repeated gray is one memory


def members(source: Any) -> list[Any]:
    """The sources that a union is made of; of another source, itself."""
    source = source.source if isinstance(source, Fitted) else source
    return list(getattr(source, "members", {"": source}).values())


def fitted(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Images [B, S, C, H, W] in the shape C, H, W; colours become their mean, gray is repeated."""
    flat = x.flatten(0, 1)
    if flat.shape[-2:] != shape[1:]:
        flat = F.interpolate(flat, shape[1:], mode="bilinear", antialias=True, align_corners=False)
    if flat.shape[1] > shape[0]:
        flat = flat.mean(1, keepdim=True)
    return flat.expand(-1, shape[0], -1, -1).reshape(*x.shape[:2], *shape)
