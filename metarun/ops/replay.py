"""Functions of tensors without their Python: the operations are recorded once for each shape, and replayed."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.dialect.common.cse_pass import CSEPass
from torch.utils import _pytree as pytree

from metarun.ops.cuda_graph import CapturedFunction, capture_on_gpu

log = logging.getLogger(__name__)

BACKENDS = ("replay", "graph", "inductor")

REPEATED = {"replay": 100, "graph": 10}
"""Calls after which recording pays. On a CPU it takes as long as 10 to 50 of them, and saves up to a third of each one
after; on a GPU the calls themselves are slow, and a graph saves nearly all that they cost the host."""


class Recorder:
    """Runs functions by what they did when they were first called with inputs of these shapes.

    What a function decides by anything but its inputs' shapes is decided when it is recorded; so the first replay is
    held against one more plain call, and a function whose outputs then differ is called plainly from there on.
    Gradients taken inside it, under torch.func or plain autograd, are recorded with it; its outputs are not to be
    differentiated. Random numbers are drawn anew at each replay, as the plain function would draw them.

    Args:
        backend: `replay` repeats the operations one by one; `graph` launches them on a GPU as one CUDA graph, or one
            by one where it cannot hold them; `inductor` has torch compile them, which takes minutes the first time
            (the result is kept on disk by torch).
        after: calls with the same shapes before they are worth recording; the plain function answers those.
    """

    def __init__(self, backend: str, after: int = 0) -> None:
        if backend not in BACKENDS:
            raise ValueError(f"{backend} is not one of {', '.join(BACKENDS)}")
        self.backend, self.after = backend, after
        self.pool: Any = None
        self.calls: Counter[Hashable] = Counter()
        self.replays: dict[Hashable, Callable[..., Any]] = {}
        self.believed: set[Hashable] = set()

    def __call__(self, name: str, function: Callable[..., Any], *inputs: Any, key: Hashable = None) -> Any:
        """`function(*inputs)`, trees of tensors in and out; recorded under `name`, `key` and the inputs' shapes."""
        tensors: list[torch.Tensor] = pytree.tree_leaves(inputs)
        shapes = tuple((tuple(t.shape), t.dtype, t.device) for t in tensors)
        use = (name, key, shapes)
        with torch.no_grad():
            if (replay := self.replays.get(use)) is not None:
                return replay(*inputs) if use in self.believed else self._check(use, function, inputs)
            self.calls[use] += 1
            if self.calls[use] <= self.after:
                return function(*inputs)
            started = time.perf_counter()
            before = _random_states()
            replay = self.replays[use] = self._record(function, inputs)
            _set_random_states(before)  # recording draws random numbers, too
            outputs = replay(*inputs)
        log.info("recorded %s in %.1f s", name, time.perf_counter() - started)
        return outputs

    def _check(self, use: Hashable, function: Callable[..., Any], inputs: Any) -> Any:
        """The first replay, held against the plain function under the same random numbers; the plain outputs."""
        before = _random_states()
        outputs = function(*inputs)
        after = _random_states()
        _set_random_states(before)
        again = self.replays[use](*inputs)
        _set_random_states(after)
        pairs = zip(pytree.tree_leaves(outputs), pytree.tree_leaves(again), strict=True)
        if all(torch.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True) for one, other in pairs):
            self.believed.add(use)
        else:
            log.warning("what this method does changes along the way: it is not replayed")
            self.calls[use] = -sys.maxsize  # never again
            del self.replays[use]
        return outputs

    def _record(self, function: Callable[..., Any], inputs: Any) -> Callable[..., Any]:
        graph = make_fx(function)(*inputs)
        graph.graph.eliminate_dead_code()  # what a derivative computed and nothing reads
        if self.backend == "graph":
            return self._capture(_merge(graph), inputs)
        graph.recompile()
        if self.backend == "inductor":
            compiled: Callable[..., Any] = torch.compile(graph, fullgraph=True, dynamic=False)
            return compiled
        return graph

    def _capture(self, graph: Callable[..., Any], inputs: Any) -> Callable[..., Any]:
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        try:
            return CapturedFunction(graph, inputs, capture_on_gpu(self.pool))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            log.warning("no CUDA graph: %s; operations are launched one by one", str(error).partition("\n")[0])
            return graph


def _merge(graph: GraphModule) -> GraphModule:
    """The same with operations done once that do the same with the same tensors, as the patches of one image for an
    output and for a gradient: 30 to 80 of 500 launches. A CPU gains nothing by it.

    Where a tensor is written to in place, two that began alike may end otherwise: then nothing is merged.
    """
    calls = [node.target for node in graph.graph.nodes if isinstance(node.target, OpOverload)]
    if not any(call._schema.is_mutable for call in calls):
        drawn = {call.overloadpacket for call in calls if torch.Tag.nondeterministic_seeded in call.tags}
        codegen = graph.graph._codegen  # which knows the trees of the inputs, and is lost by the pass
        merged = CSEPass(banned_ops=drawn)(graph)
        assert merged is not None
        graph = merged.graph_module
        graph.graph.set_codegen(codegen)
    graph.recompile()
    return graph


def _random_states() -> list[torch.Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def _set_random_states(states: list[torch.Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])
