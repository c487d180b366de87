"""Times of one call among many, without the launches from Python where there is a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

cuda: Any = torch.cuda

CALLS = 20
"""In a CUDA graph, or fewer where they would take long."""

LONG = 4_000.0
"""Microseconds that the calls of one graph may take."""


class Clock:
    """Times calls on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            self.stream = cuda.Stream()
            self.kept, self.pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
            self.capture(self.kept, lambda: torch.zeros(1, device=device), 1)  # keeps the pool of memory for the next

    def microseconds(self, call: Callable[[], object]) -> float:
        """Of one call, the best of a few."""
        if self.device.type != "cuda":
            return min(self.by_hand(call) for _ in range(3))
        with torch.cuda.stream(self.stream):
            call()
            calls = max(1, min(CALLS, int(LONG / self.between(call))))
            graph = torch.cuda.CUDAGraph()
            self.capture(graph, call, calls)
            graph.replay()
            return min(self.between(graph.replay) for _ in range(2)) / calls

    def capture(self, graph: torch.cuda.CUDAGraph, call: Callable[[], object], calls: int) -> None:
        """By hand, since torch.cuda.graph gives back all memory first."""
        torch.cuda.synchronize()
        with torch.cuda.stream(self.stream):
            graph.capture_begin(self.pool)
            try:
                for _ in range(calls):
                    call()
            finally:
                graph.capture_end()

    def between(self, call: Callable[[], object]) -> float:
        start, end = (cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        return 1000 * float(start.elapsed_time(end))

    def by_hand(self, call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        return 1e6 * (time.perf_counter() - start)
