"""Images resized and normalised as a network expects that was trained on another source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from metarun.core.batches import change_batches
from metarun.core.tasks import Batch, EmbeddableSource, Examples, TaskSource
from metarun.data.augment import Look
from metarun.data.images import PLAIN_LOOK


class Resized:
    """The tasks of a source of images, resized for a network that was trained on another source.

    Args:
        source: a source of images, or a union of such. With a `look`, its own normalisation is switched off.
        shape: C, H, W of the network's inputs.
        look: normalises pixels in 0..1 instead; None keeps the normalisation of the source.
    """

    def __init__(self, source: Any, shape: tuple[int, ...], look: Look | None) -> None:
        self.source, self.shape, self.look = source, shape, look
        if look:
            for member in members(source):
                member.look = replace(member.look, mean=PLAIN_LOOK.mean, std=PLAIN_LOOK.std)
        self.info = replace(source.info, input_shape=shape)
        for name in ("labels", "turns"):
            if hasattr(source, name):
                setattr(self, name, getattr(source, name))

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Any]:
        for batch in self.source.episodes(split, first, batch_size):
            yield change_batches(batch, self._fit)

    def embedded(self, split: str, encode: Callable[[Tensor], Tensor], n_tasks: int) -> TaskSource | None:
        if not isinstance(self.source, EmbeddableSource):
            return None
        return self.source.embedded(split, lambda x: encode(self._resize(x[None])[0]), n_tasks)

    def fingerprint(self, split: str, n_tasks: int) -> str:
        fingerprint: str = self.source.fingerprint(split, n_tasks)
        return fingerprint

    def _fit(self, batch: Batch) -> Batch:
        return batch._replace(support=self._side(batch.support), query=self._side(batch.query))

    def _side(self, side: Examples) -> Examples:
        return Examples(self._resize(side.x), side.y)

    def _resize(self, x: Tensor) -> Tensor:
        x = resize(x, self.shape)
        return self.look.normalise(x.contiguous()) if self.look else x  # the repeated gray shares memory


def members(source: Any) -> list[Any]:
    """Return the sources of a union; for any other source, the source itself."""
    source = source.source if isinstance(source, Resized) else source
    return list(getattr(source, "members", {"": source}).values())


def list_classes(source: Any, split: str) -> set[str]:
    """Return the names of a split's classes, with their world's; empty if tasks are functions."""
    return {label for member in members(source) for label in getattr(member, "classes", {}).get(split, ())}


def resize(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Resize images [B, S, ...] to `shape` C, H, W. Colours become their mean, or gray is repeated as channels need."""
    flat = x.flatten(0, 1)  # [B S, C, H, W]
    if flat.shape[-2:] != shape[1:]:
        flat = F.interpolate(flat, shape[1:], mode="bilinear", antialias=True, align_corners=False)
    if flat.shape[1] > shape[0]:
        flat = flat.mean(1, keepdim=True)
    return flat.expand(-1, shape[0], -1, -1).reshape(*x.shape[:2], *shape)


def describe_fitting(
    name: str, size: int, shape: Sequence[int], wanted: Sequence[int], normalised_as: str | None
) -> str:
    """Describe how images of this size and shape are changed into a network's inputs."""
    done = [f"{size}x{size} pixels become {wanted[1]}x{wanted[2]}"] if size != wanted[1] else []
    if shape[0] != wanted[0]:
        done.append("gray is repeated in 3 channels" if shape[0] < wanted[0] else "colours become gray")
    done += [f"normalised as those of {normalised_as}"] if normalised_as else []
    return f"images of {name}: {', '.join(done) or 'as they are'}"
