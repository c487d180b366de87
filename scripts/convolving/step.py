"""A whole outer step's gradient of MAML, with its convolutions computed in one way or the other."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from contestants import settings
from contestants.ours import batch, learner

from convolving.clock import Clock
from metarun.core import tuning
from metarun.ops import context
from metarun.ops.replay import merge_equal_operations, record_operations

WAYS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "by rule": nullcontext,
    "grouped": lambda: context.convolving("grouped"),
    "patches": lambda: context.convolving("patches"),
}


class Keeper:
    """Takes the place of a learner's recorder, and keeps what it is to record."""

    after = 0

    def __call__(self, name: str, function: Callable[..., Any], *inputs: Any, key: Hashable = None) -> Any:
        with torch.no_grad():
            self.graph, self.inputs = record_operations(function, inputs), inputs
        return self.again()

    def merge(self) -> None:
        """Have operations that do the same with the same tensors, as the tables of one x for y and gw, done once."""
        self.graph = merge_equal_operations(self.graph)

    @torch.no_grad()
    def again(self) -> Any:
        return self.graph(*self.inputs)

    @property
    def operations(self) -> int:
        """Calls of the record, views among them."""
        return sum(node.op == "call_function" for node in self.graph.graph.nodes)


def measure_step(name: str, clock: Clock) -> Iterator[dict[str, Any]]:
    """Rows of the setting of this name in scripts/bench.py: each way as recorded and `merged`, in each precision."""
    setting = replace(settings.chosen(name)[0], device=str(clock.device))
    for way, entered in WAYS.items():
        row: dict[str, Any] = {"step": name, "way": way}
        try:
            keeper, trained = Keeper(), learner(setting).to(clock.device).train()
            trained.recorder = keeper  # type: ignore[assignment]
            with entered():
                trained.meta_gradient(batch(setting))
            yield from ({**row, **found} for found in _times(keeper, clock))
            keeper.merge()
            yield from ({**row, "merged": True, **found} for found in _times(keeper, clock))
        except RuntimeError as problem:
            yield {**row, "error": str(problem).partition("\n")[0]}


def _times(keeper: Keeper, clock: Clock) -> Iterator[dict[str, Any]]:
    for precision in ("float32", "tf32"):
        tuning.set_precision(precision)
        took = clock.microseconds(keeper.again)
        yield {"precision": precision, "operations": keeper.operations, "microseconds": round(took, 1)}
