"""Batches of tasks joined, and batches of tasks of many shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from metarun.core.tasks import Batch, Examples


@dataclass(frozen=True)
class MixedBatch:
    """Tasks of many shapes, each a batch of its own. Learners compute them one by one."""

    alone: tuple[Batch, ...]

    @property
    def n_tasks(self) -> int:
        return len(self.alone)

    def tasks(self, first: int, last: int) -> Batch | MixedBatch:
        """Return the tasks first..last-1 of this batch; a single task as a batch like all others."""
        kept = self.alone[first:last]
        return kept[0] if len(kept) == 1 else MixedBatch(kept)


def as_batch(parts: Sequence[Batch]) -> Batch | MixedBatch:
    """Return the tasks of all parts, each of which has one shape, as one batch."""
    return parts[0] if len(parts) == 1 else MixedBatch(tuple(parts))


def list_batches(batch: Batch | MixedBatch) -> tuple[Batch, ...]:
    """List the parts of a batch in which all tasks have one shape."""
    return batch.alone if isinstance(batch, MixedBatch) else (batch,)


def change_batches(batch: Batch | MixedBatch, change: Callable[[Batch], Batch]) -> Batch | MixedBatch:
    """Return the batch with `change` made to each part in which all tasks have one shape."""
    return MixedBatch(tuple(map(change, batch.alone))) if isinstance(batch, MixedBatch) else change(batch)


def join_tasks(batches: Sequence[Batch]) -> Batch:
    """Return the tasks of all batches, which are alike, as one batch."""
    sides = [
        Examples(*(torch.cat([getattr(batch, side)[i] for batch in batches]) for i in (0, 1)))
        for side in ("support", "query")
    ]
    facts = {name: torch.cat([batch.side[name] for batch in batches]) for name in batches[0].side}
    return Batch(sides[0], sides[1], batches[0].n_way, facts)


def merge_sides(batch: Batch) -> Batch:
    """Return tasks whose queries are all their examples, those of the support set first."""
    pairs = zip(batch.support, batch.query, strict=True)
    return batch._replace(query=Examples(*(torch.cat(pair, 1) for pair in pairs)))
