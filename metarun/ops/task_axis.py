"""Fold the tasks into another dimension of a layer's tensors, so that one call of the layer serves all tasks.

Under vmap a layer gets tensors with the tasks at some dimension `at`; None if all tasks share the tensor.
"""

from __future__ import annotations

from torch import Tensor


def fold_into_rows(x: Tensor, at: int | None, tasks: int) -> Tensor:
    """Make the tasks of x more rows of one batch: [R * B, C, ...], a view if the tasks are second in memory."""
    return _put_second(x, at, tasks).flatten(0, 1)


def unfold_rows(x: Tensor, tasks: int) -> Tensor:
    """Undo `fold_into_rows`: [R, B, C, ...]."""
    return x.reshape(-1, tasks, *x.shape[1:])


def fold_into_channels(x: Tensor, at: int | None, tasks: int) -> Tensor:
    """Make the tasks of x more channels of one batch: [R, B * C, ...], a view if the tasks are second in memory."""
    return _put_second(x, at, tasks).flatten(1, 2)


def unfold_channels(x: Tensor, tasks: int) -> Tensor:
    """Undo `fold_into_channels`: [R, B, C, ...]."""
    return x.reshape(x.shape[0], tasks, -1, *x.shape[2:])


def fold_into_first(w: Tensor, at: int | None, tasks: int) -> Tensor:
    """Concatenate the weights [C, ...] of all tasks: [B * C, ...]."""
    return (w.expand(tasks, *w.shape) if at is None else w.movedim(at, 0)).flatten(0, 1)


def _put_second(x: Tensor, at: int | None, tasks: int) -> Tensor:
    return x.unsqueeze(1).expand(-1, tasks, *x.shape[1:]) if at is None else x.movedim(at, 1)
