"""Capture a function of tensors as one CUDA graph, so that a single call launches all its kernels again.

A kernel of a small network takes 2 µs, but launching it from Python takes 5 to 10; an outer step has hundreds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

WARM_UP_CALLS = 2
"""Plain calls before a capture. In the first one, libraries choose their algorithms and allocate memory."""

Launch = Callable[[], None]
Capture = Callable[[Launch], Launch]
"""Runs some work, and returns a function that runs it again on the same memory."""


class CapturedFunction:
    """A function for inputs of fixed shapes, captured once and launched at each call.

    A graph reads and writes the same memory each time. So each call copies its inputs into that memory and its outputs
    out of it, with one kernel for each dtype.

    Args:
        function: from trees of tensors to a tree of tensors; it reads no number on the host.
        inputs: the trees of its first call.
        capture: runs and captures the work, as the function that `capture_on_gpu` returns.
    Raises: RuntimeError if a graph cannot hold the function, for instance because it waits for a number.
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
    """Return a `Capture` by a CUDA graph with memory from `pool`; see `torch.cuda.graph_pool_handle`.

    Graphs may share a pool, because each ends, and its outputs are copied, before the next is launched.
    """

    def capture(work: Launch) -> Launch:
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP_CALLS):
                work()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads may call CUDA meanwhile, for instance to pin memory
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            work()
        return graph.replay

    return capture


def _join(outputs: list[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.cat([output.detach().reshape(-1) for output in outputs if output.dtype == dtype])


def _split(flat: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    parts = torch.split(flat, [shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
