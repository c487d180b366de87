"""The state of a computation that a layer cannot see and that a learner therefore announces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Way = Literal["grouped", "patches"]
"""How convolutions are computed; see convolution.py."""


@dataclass
class _Now:
    support_rows: int | None = None
    adapting: bool = False
    twice: bool = False
    recorded: list[tuple[Tensor, Tensor]] | None = None
    way: Way | None = None
    restoring: bool = False


now = _Now()
"""The present state. Only the functions below change it."""


@contextmanager
def _during(**values: Any) -> Iterator[None]:
    """Give `now` these values inside the context."""
    before = {name: getattr(now, name) for name in values}
    vars(now).update(values)
    try:
        yield
    finally:
        vars(now).update(before)


def support_rows(n: int) -> AbstractContextManager[None]:
    """Inside, the first `n` rows of a batch are the support images of one task."""
    return _during(support_rows=n)


def adapting() -> AbstractContextManager[None]:
    """Inside, an inner loop trains on a task, whether the module is in training mode or not."""
    return _during(adapting=True)


def frozen() -> AbstractContextManager[None]:
    """Inside, a network works as in a prediction, since the inner loop around it does not change it."""
    return _during(adapting=False)


def differentiated(twice: bool) -> AbstractContextManager[None]:
    """Inside, the computations of layers will be differentiated `twice`, or else once."""
    return _during(twice=twice)


def convolving(way: Way) -> AbstractContextManager[None]:
    """Inside, convolutions under a transform are computed this `way` on every device. For tests and timings."""
    return _during(way=way)


def restoring(begun: bool = True) -> AbstractContextManager[None]:
    """Inside, networks are built whose weights come from a checkpoint afterwards, if there is one: they need no others.

    Args:
        begun: whether there is one.
    """
    return _during(restoring=begun)


def is_transformed() -> bool:
    """Return whether a transform of torch.func, such as vmap or grad, is active."""
    return bool(torch._C._are_functorch_transforms_active())


def in_inner_loop() -> bool:
    """Return whether an inner loop is running."""
    return now.adapting


@contextmanager
def recording() -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collect the batch mean and variance of each `bn=running` layer, in the order in which the layers run."""
    recorded: list[tuple[Tensor, Tensor]] = []
    with _during(recorded=recorded):
        yield recorded
