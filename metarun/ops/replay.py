"""Functions of tensors without their Python: the operations are recorded once for each shape, and replayed."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

log = logging.getLogger(__name__)

BACKENDS = ("replay", "inductor")

REPEATED = 100
"""Calls after which recording pays: it takes as long as 10 to 50 of them, and saves up to a third of each one after."""


class Recorder:
    """Runs functions by what they did when they were first called with inputs of these shapes.

    What a function decides by anything but its inputs' shapes is decided when it is recorded. Gradients taken inside
    it, under torch.func or plain autograd, are recorded with it; its outputs are not to be differentiated. Random
    numbers are drawn anew at each replay.

    Args:
        backend: `replay` repeats the operations one by one; `inductor` has torch compile them, which takes minutes
            the first time (the result is kept on disk by torch).
        after: calls with the same shapes before they are worth recording; the plain function answers those.
    """

    def __init__(self, backend: str, after: int = 0) -> None:
        if backend not in BACKENDS:
            raise ValueError(f"{backend} is not one of {', '.join(BACKENDS)}")
        self.backend, self.after = backend, after
        self.calls: Counter[Hashable] = Counter()
        self.replays: dict[Hashable, Callable[..., Any]] = {}

    def __call__(self, name: str, function: Callable[..., Any], *inputs: Any, key: Hashable = None) -> Any:
        """`function(*inputs)`, trees of tensors in and out; recorded under `name`, `key` and the inputs' shapes."""
        tensors: list[torch.Tensor] = pytree.tree_leaves(inputs)
        shapes = tuple((tuple(t.shape), t.dtype, t.device) for t in tensors)
        use = (name, key, shapes)
        with torch.no_grad():
            if (replay := self.replays.get(use)) is not None:
                return replay(*inputs)
            self.calls[use] += 1
            if self.calls[use] <= self.after:
                return function(*inputs)
            started = time.perf_counter()
            replay = self.replays[use] = self._record(function, inputs)
            outputs = replay(*inputs)
        log.info("recorded %s in %.1f s", name, time.perf_counter() - started)
        return outputs

    def _record(self, function: Callable[..., Any], inputs: Any) -> Callable[..., Any]:
        graph = make_fx(function)(*inputs)
        if self.backend == "replay":
            return graph
        compiled: Callable[..., Any] = torch.compile(graph, fullgraph=True, dynamic=False)
        return compiled
