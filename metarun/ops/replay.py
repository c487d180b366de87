"""Record the operations of functions of tensors once for each shape, and replay them without the functions' Python."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
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

CALLS_BEFORE_RECORDING = {"replay": 100, "graph": 10}
"""Plain calls before a function is recorded, by backend.

On a CPU, recording takes as long as 10 to 50 calls and saves up to a third of each later call. On a GPU, plain calls
are slow, and a graph saves nearly all of the host's time.
"""


class Recorder:
    """Calls functions, and replays recordings of functions that are called repeatedly with the same shapes.

    A recording fixes every decision that depends on anything but the shapes of the inputs. So the first replay is
    compared with one more plain call, and a function whose outputs then differ is never replayed. A recording includes
    gradients taken inside the function, by torch.func or plain autograd; its outputs must not be differentiated. Each
    replay draws new random numbers, the same ones that the plain function would draw.

    Args:
        backend: `replay` repeats the operations one by one; `graph` launches them on a GPU as one CUDA graph, or one
            by one if a graph cannot hold them; `inductor` has torch compile them, which takes minutes the first time
            (torch keeps the result on disk).
        after: plain calls with the same shapes before a recording.
    """

    def __init__(self, backend: str, after: int = 0) -> None:
        if backend not in BACKENDS:
            raise ValueError(f"{backend} is not one of {', '.join(BACKENDS)}")
        self.backend, self.after = backend, after
        self.pool: Any = None
        self.calls: Counter[Hashable] = Counter()
        self.records: dict[Hashable, Callable[..., Any]] = {}  # recordings that are not checked yet
        self.replays: dict[Hashable, Callable[..., Any]] = {}
        self.believed: set[Hashable] = set()

    def __call__(self, name: str, function: Callable[..., Any], *inputs: Any, key: Hashable = None) -> Any:
        """Return `function(*inputs)`, from trees of tensors to a tree, by a recording if there is one.

        Recordings are kept by `name`, `key` and the shapes of the inputs.
        """
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
            before = _get_random_states()
            record = record_operations(function, inputs)
            if self.backend == "graph":
                record = merge_equal_operations(record)
            self.records[use] = record
            replay = self.replays[use] = self._prepare(record, inputs)
            _set_random_states(before)  # recording has drawn random numbers
            outputs = replay(*inputs)
        log.info("recorded %s in %.1f s", name, time.perf_counter() - started)
        return outputs

    def _check(self, use: Hashable, function: Callable[..., Any], inputs: Any) -> Any:
        """Compare the recording with the plain function under the same random numbers; return the plain outputs.

        The recording runs the same kernels as the plain function, so both give the same bits as long as no kernel adds
        in a random order.
        """
        before = _get_random_states()
        with _fixed_order():
            outputs = function(*inputs)
            after = _get_random_states()
            _set_random_states(before)
            again = self.records.pop(use)(*inputs)
        _set_random_states(after)
        if all(map(_are_equal, pytree.tree_leaves(outputs), pytree.tree_leaves(again))):
            self.believed.add(use)
        else:
            log.warning("this method changes its computation from step to step: it is not replayed")
            self.calls[use] = -sys.maxsize  # never again
            del self.replays[use]
        return outputs

    def _prepare(self, record: GraphModule, inputs: Any) -> Callable[..., Any]:
        if self.backend == "graph":
            return self._capture(record, inputs)
        if self.backend == "inductor":
            compiled: Callable[..., Any] = torch.compile(record, fullgraph=True, dynamic=False)
            return compiled
        return record

    def _capture(self, graph: GraphModule, inputs: Any) -> Callable[..., Any]:
        try:
            _check_constants(graph, {leaf.device for leaf in pytree.tree_leaves(inputs)})
            self.pool = self.pool or torch.cuda.graph_pool_handle()
            return CapturedFunction(graph, inputs, capture_on_gpu(self.pool))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            log.warning("no CUDA graph: %s; operations are launched one by one", str(error).partition("\n")[0])
            return graph


def record_operations(function: Callable[..., Any], inputs: Any) -> GraphModule:
    """Record the operations of `function(*inputs)`, without those whose values nothing reads, as of derivatives."""
    record: GraphModule = make_fx(function)(*inputs)
    record.graph.eliminate_dead_code()
    record.recompile()
    return record


def _check_constants(graph: GraphModule, devices: set[torch.device]) -> None:
    """Raise RuntimeError if a tensor of another device takes part: a graph would read its memory after it is freed."""
    for node in graph.graph.nodes:
        constant = getattr(graph, node.target, None) if node.op == "get_attr" else None
        if isinstance(constant, torch.Tensor) and constant.device not in devices:
            raise RuntimeError(f"a tensor of the {constant.device} takes part in it")


def merge_equal_operations(graph: GraphModule) -> GraphModule:
    """Merge equal operations on the same tensors, such as making the patches of an image for an output and a gradient.

    This saves 30 to 80 of 500 launches on a GPU; a CPU gains nothing. If the graph writes to a tensor in place, nothing
    is merged, because tensors that are equal at first may differ later.
    """
    calls = [node.target for node in graph.graph.nodes if isinstance(node.target, OpOverload)]
    if any(call._schema.is_mutable for call in calls):
        return graph
    drawn = {call.overloadpacket for call in calls if torch.Tag.nondeterministic_seeded in call.tags}
    codegen = graph.graph._codegen  # it knows the trees of the inputs, and the pass drops it
    merged = CSEPass(banned_ops=drawn)(graph)
    assert merged is not None
    found: GraphModule = merged.graph_module
    found.graph.set_codegen(codegen)
    found.recompile()
    return found


def _are_equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Compare to the bit on a CPU; on a GPU the last digits may differ, as some kernels add in no fixed order."""
    if one.device.type == "cpu" or not one.is_floating_point():
        return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
    return bool((one - other).norm() <= 1e-6 * one.norm())


@contextmanager
def _fixed_order() -> Iterator[None]:
    """Inside, convolutions add in the same order each time."""
    before, torch.backends.cudnn.deterministic = torch.backends.cudnn.deterministic, True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


def _get_random_states() -> list[torch.Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def _set_random_states(states: list[torch.Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])
