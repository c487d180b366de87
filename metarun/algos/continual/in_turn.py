from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarun.algos.base.network import with_support
from metarun.algos.base.pretraining import Pretraining
from metarun.core.tasks import Examples
from metarun.ops import context, norm
from metarun.ops.functional import Params


class Seen(NamedTuple):
    """What a method keeps of the tasks so far, and the inputs that `bn=support` normalises by; none for other `bn`."""

    own: Any
    support_x: Tensor


class InTurn(Pretraining):
    """A method that learns task after task, each from its own examples alone, without those of earlier tasks.

    A stream has a known number of classes, of which each task brings some; a method writes `begin`, `learn` and
    `answer`. A single task, as of run=offline, is a stream of one task. With `bn=running`, a
    network that stands still has the averages of the training, and one that a task moves has those of the task's
    examples. `bn=support` keeps the images of all tasks for its statistics: it is not for learning without memory.
    """

    @abstractmethod
    def begin(self, params: Params, n_classes: int) -> Any:
        """Return what is known before the first task: a tree of tensors."""

    @abstractmethod
    def learn(self, params: Params, known: Any, examples: Examples, classes: range) -> Any:
        """Return what is known after a task with these classes; examples.y [S] is in `classes`."""

    @abstractmethod
    def answer(self, params: Params, known: Any, x: Tensor) -> Tensor:
        """Return logits of all classes [R, n_classes] for inputs [R, ...]; anything for those that are to come."""

    def adapt(self, params: Params, support: Examples, n_way: int) -> Seen:
        return Seen(self.learn(params, self.begin(params, n_way), support, range(n_way)), support.x)

    def predict(self, params: Params, state: Seen, x: Tensor) -> Tensor:
        return with_support(self.backbone, partial(self.answer, params, state.own), state.support_x, x)

    def find_averages(self, run: Callable[[], Any]) -> Params:
        """Return what `run` puts through a network that a task has moved as averages for `bn=running`, by name."""
        with context.adapting(), context.recording() as statistics:
            run()
        names = [n for n, layer in self.backbone.named_modules() if layer in norm.find_running_layers(self.backbone)]
        found: Params = {}
        for name, (mean, var) in zip(names, statistics, strict=True):
            found |= {f"backbone.{name}.running_mean": mean, f"backbone.{name}.running_var": var}
        return found

    @torch.no_grad()
    def start_stream(self, n_classes: int) -> Seen:
        return Seen(self.begin(self.theta(), n_classes), torch.empty(0))

    @torch.no_grad()
    def learn_task(self, state: Seen, examples: Examples, classes: range) -> Seen:
        own = self.learn(self.theta(), state.own, examples, classes)
        if not norm.uses_support_statistics(self.backbone):
            return Seen(own, state.support_x)
        return Seen(own, torch.cat([state.support_x, examples.x]) if len(state.support_x) else examples.x)

    @torch.no_grad()
    def answer_task(self, state: Seen, x: Tensor) -> Tensor:
        return self.predict(self.theta(), state, x)
