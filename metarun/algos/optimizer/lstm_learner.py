from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Gt, Lt
from torch import Tensor, nn

from metarun.algos.base.episodic import EpisodicLearner
from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.network import Network, with_support
from metarun.algos.optimizer.coordinates import preprocess
from metarun.core.ranges import NonNegativeInt, PositiveInt
from metarun.core.tasks import Examples, Objective
from metarun.ops.functional import Params, call, flatten, gradient, unflatten, within
from metarun.ops.lstm import LSTMCell


class Trained(NamedTuple):
    """A task's state: phi, and the support set for the statistics of `bn=support`."""

    phi: Params
    support: Examples


class LSTMLearner(EpisodicLearner):
    """Learns an optimizer, a long short-term memory whose cell is the network's weights, and their initial values.

    The forget and the input gate of each weight are read from its gradient and the loss; all weights share the gates'
    parameters. No meta-gradient flows through gradients and losses. An inner step sees the whole support set, where the
    paper takes minibatches. The gates see their own values of the step before, as in the formula; the authors' code
    hands on what comes before the sigmoid. The paper takes BatchNorm's statistics from the support set: `bn=support`.

    Shapes: support.x [S, ...], support.y [S] int64 in 0..N-1 or [S, D_out]; predicts [M, outputs].
    Args:
        backbone: from inputs to features [R, out_features].
        outputs: size of the linear head.
        objective: its `loss` is descended in both loops.
        inner_steps, test_inner_steps: updates on a task in meta-training, and in validation and test.
        units: of the long short-term memory that reads gradients and losses.
        start_rate: size of the first steps, above 0 and below 1: the input gate begins there, the forget gate near 1.
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
    Reference: Ravi, Larochelle. Optimization as a Model for Few-Shot Learning. ICLR 2017, section 3.
    """

    kinds = ("classification", "regression")
    recordable = True

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        objective: Objective,
        inner_steps: PositiveInt,
        test_inner_steps: PositiveInt,
        units: PositiveInt,
        start_rate: Annotated[float, Gt(0), Lt(1)],
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(engine, task_chunk, objective)
        self.inner_steps, self.test_inner_steps = inner_steps, test_inner_steps
        self.net = Network(backbone, outputs)
        self.updater = Updater(units, start_rate)

    def adapt(self, params: Params, support: Examples, n_way: int) -> Trained:
        phi = within(params, "net")
        update = partial(call, self.updater, within(params, "updater"))
        memory = self.updater.start(flatten(phi))
        for _ in range(self.inner_steps if self.training else self.test_inner_steps):
            grads = gradient(partial(self._loss, support), phi, first_order=True)
            with torch.no_grad():
                loss = self._loss(support, {name: value.detach() for name, value in phi.items()})
            weights, memory = update(flatten(phi), flatten(grads), loss, memory)
            phi = unflatten(weights, phi)
        return Trained(phi, support)

    def predict(self, params: Params, state: Trained, x: Tensor) -> Tensor:
        return with_support(self.net, partial(call, self.net, state.phi), state.support.x, x)

    def describe(self) -> dict[str, Any]:
        return {"inner_steps": {"train": self.inner_steps, "test": self.test_inner_steps}}

    def _loss(self, support: Examples, phi: Params) -> Tensor:
        return self.objective(call(self.net, phi, support.x), support.y)["loss"]


class Memory(NamedTuple):
    """What the updater remembers of each of n weights: hidden and cell [n, units], and both gates [n]."""

    hidden: Tensor
    cell: Tensor
    put: Tensor
    keep: Tensor


class Updater(nn.Module):
    """One step of the optimizer: from n weights, their gradients and the loss to new weights."""

    def __init__(self, units: int, start_rate: float) -> None:
        super().__init__()
        self.units = units
        self.lstm = LSTMCell(4, units, units)
        self.put, self.keep = nn.Linear(units + 2, 1), nn.Linear(units + 2, 1)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.01, 0.01)
        nn.init.constant_(self.put.bias, math.log(start_rate / (1 - start_rate)))
        nn.init.uniform_(self.keep.bias, 4, 5)  # as the authors' code

    def start(self, weights: Tensor) -> Memory:
        zeros = torch.zeros_like(weights)
        rows = zeros[:, None].expand(-1, self.units)
        return Memory(rows, rows, zeros, torch.ones_like(weights))

    def forward(self, weights: Tensor, grads: Tensor, loss: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        seen = torch.cat([preprocess(grads), preprocess(loss).expand(len(grads), -1)], -1)  # [n, 4]
        hidden, cell = self.lstm(seen, memory.hidden, memory.cell)
        put = self._gate(self.put, hidden, weights, memory.put)  # equation 3
        keep = self._gate(self.keep, hidden, weights, memory.keep)  # equation 4
        return keep * weights - put * grads, Memory(hidden, cell, put, keep)  # equation 2

    def _gate(self, layer: nn.Module, hidden: Tensor, weights: Tensor, before: Tensor) -> Tensor:
        value: Tensor = layer(torch.cat([hidden, weights[:, None], before[:, None]], -1))
        return value.squeeze(-1).sigmoid()
