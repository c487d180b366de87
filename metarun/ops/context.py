"""Where in a computation the layers of a network are: what a learner says and a layer cannot know."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Way = Literal["grouped", "patches"]
"""How convolutions are computed, see convolution.py."""


@dataclass
class _Now:
    support_rows: int | None = None
    adapting: bool = False
    twice: bool = False
    recorded: list[tuple[Tensor, Tensor]] | None = None
    way: Way | None = None


now = _Now()
"""What is going on; changed by the functions below alone."""


@contextmanager
def _during(**values: Any) -> Iterator[None]:
    """Inside, `now` has these values."""
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
    """Inside, an inner loop trains on a task, whatever the module's mode."""
    return _during(adapting=True)


def differentiated(twice: bool) -> AbstractContextManager[None]:
    """Inside, what layers do will be differentiated `twice`, or once."""
    return _during(twice=twice)


def convolving(way: Way) -> AbstractContextManager[None]:
    """Inside, convolutions under a transform are computed this `way`, on whatever device: for tests and timings."""
    return _during(way=way)


def transformed() -> bool:
    """Whether a transform of torch.func, such as vmap or grad, is under way: whoever called it."""
    return bool(torch._C._are_functorch_transforms_active())


def in_inner_loop() -> bool:
    """Whether an inner loop is under way."""
    return now.adapting


@contextmanager
def recording() -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collect each `bn=running` layer's batch mean and variance, in the order the layers run."""
    recorded: list[tuple[Tensor, Tensor]] = []
    with _during(recorded=recorded):
        yield recorded
