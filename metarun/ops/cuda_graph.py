"""A function of tensors as one CUDA graph: all that it launches on a GPU is launched again by one call.

A kernel of a small network takes 2 µs, and to launch it from Python 5 to 10; an outer step has hundreds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

WARM_UPS = 2
"""Plain calls before a capture: libraries choose their algorithms in the first one, and ask for memory."""

Launch = Callable[[], None]
Capture = Callable[[Launch], Launch]
"""Runs some work, and returns what runs it again on the same memory."""


class CapturedFunction:
    """What a function does with inputs of these shapes, captured once and launched at each call.

    A graph reads and writes the same memory each time. So inputs are copied to a place of their own, and outputs from
    theirs, each type of number by one kernel.

    Args:
        function: from trees of tensors to a tree of tensors; reads no number on the host.
        inputs: the trees of its first call.
        capture: as `capture_on_gpu`.
    Raises: RuntimeError if the function does what a graph cannot hold, such as waiting for a number.
    """

    def __init__(self, function: Callable[..., Any], inputs: Any, capture: Capture) -> None:
        leaves, spec = pytree.tree_flatten(inputs)
        places: list[Tensor] = [leaf.detach().clone() for leaf in leaves]

        def work() -> None:
            outputs, self.spec = pytree.tree_flatten(function(*pytree.tree_unflatten(places, spec)))
            self.shapes = [output.shape for output in outputs]
            self.types = [output.dtype for output in outputs]
            self.flat = {dtype: _join(outputs, dtype) for dtype in dict.fromkeys(self.types)}

        self.places = places
        self.launch = capture(work)

    def __call__(self, *inputs: Any) -> Any:
        self._put(pytree.tree_leaves(inputs))
        self.launch()
        taken = {dtype: _split(self.flat[dtype].clone(), self._shapes(dtype)) for dtype in self.flat}
        return pytree.tree_unflatten([taken[dtype].pop(0) for dtype in self.types], self.spec)

    def _put(self, inputs: list[Tensor]) -> None:
        for dtype in dict.fromkeys(place.dtype for place in self.places):
            pairs = [(place, value) for place, value in zip(self.places, inputs, strict=True) if place.dtype == dtype]
            torch._foreach_copy_([place for place, _ in pairs], [value for _, value in pairs])

    def _shapes(self, dtype: torch.dtype) -> list[torch.Size]:
        return [shape for shape, own in zip(self.shapes, self.types, strict=True) if own == dtype]


def capture_on_gpu(pool: Any) -> Capture:
    """A `Capture` by a CUDA graph, its memory from `pool`, see `torch.cuda.graph_pool_handle`.

    Graphs may share a pool, since one ends before the next is launched and its outputs are copied in between.
    """

    def capture(work: Launch) -> Launch:
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UPS):
                work()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # thread_local: what other threads do meanwhile, such as pinning memory, is none of the graph's business
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            work()
        return graph.replay

    return capture


def _join(outputs: list[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.cat([output.detach().reshape(-1) for output in outputs if output.dtype == dtype])


def _split(flat: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    parts = torch.split(flat, [shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
