"""Tasks folded into a dimension that a layer has anyway, so that one call of it serves them all.

Under vmap a layer gets tensors with a task dimension at some place `at`, or None where all tasks share the tensor.
"""

from __future__ import annotations

from torch import Tensor


def into_rows(x: Tensor, at: int | None, tasks: int) -> Tensor:
    """x of all tasks as more rows of one batch: [R * B, C, ...], a view if the tasks come second in memory."""
    return _second(x, at, tasks).flatten(0, 1)


def from_rows(x: Tensor, tasks: int) -> Tensor:
    """What `into_rows` made, apart again: [R, B, C, ...]."""
    return x.reshape(-1, tasks, *x.shape[1:])


def into_channels(x: Tensor, at: int | None, tasks: int) -> Tensor:
    """x of all tasks as more channels of one batch: [R, B * C, ...], a view if the tasks come second in memory."""
    return _second(x, at, tasks).flatten(1, 2)


def from_channels(x: Tensor, tasks: int) -> Tensor:
    """What `into_channels` made, apart again: [R, B, C, ...]."""
    return x.reshape(x.shape[0], tasks, -1, *x.shape[2:])


def into_first(w: Tensor, at: int | None, tasks: int) -> Tensor:
    """Weights [C, ...] of all tasks one after the other: [B * C, ...]."""
    return (w.expand(tasks, *w.shape) if at is None else w.movedim(at, 0)).flatten(0, 1)


def _second(x: Tensor, at: int | None, tasks: int) -> Tensor:
    return x.unsqueeze(1).expand(-1, tasks, *x.shape[1:]) if at is None else x.movedim(at, 1)
