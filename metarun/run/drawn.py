"""What a run has drawn to train on: the budget by which methods are compared."""

from __future__ import annotations

from typing import Any

from metarun.core.batches import MixedBatch
from metarun.core.tasks import Batch, Examples, Pairs


def count_drawn(batch: Any) -> tuple[int, int] | None:
    """Count the inputs (images, or points of functions; an input drawn twice counts twice) and the tasks of a batch.

    Returns: None for a batch of another kind, such as environments.
    """
    if isinstance(batch, Batch):
        return batch.n_tasks * sum(int(side.x.shape[1]) for side in (batch.support, batch.query)), batch.n_tasks
    if isinstance(batch, MixedBatch):
        counts = [found for one in batch.alone if (found := count_drawn(one))]
        return sum(inputs for inputs, _ in counts), len(counts)
    if isinstance(batch, Examples):
        return len(batch.x), 0
    if isinstance(batch, Pairs):
        return len(batch.source.x) + len(batch.target), 0
    inner = getattr(batch, "drawn", None)  # of a stage
    return None if inner is None else count_drawn(inner)
