from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarun.algos.base.episodic import EpisodicLearner
from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import average_classes, embed_together, find_cosines
from metarun.algos.optimizer.coordinates import preprocess
from metarun.core.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, UpTo
from metarun.core.tasks import Examples
from metarun.ops.functional import Params, call, flatten, gradient, one_hot, unflatten, within
from metarun.ops.lstm import LSTMCell


class Read(NamedTuple):
    """A task's state: the support inputs, one-hot labels [S, N], and in training the comparing network's loss."""

    x: Tensor
    classes: Tensor
    comparing: Tensor


class MetaNet(EpisodicLearner):
    """Meta Networks: gradients on the support set are turned into fast weights, which work beside the slow ones.

    On the backbone's features stand two small networks. The gradients of the one that compares (Q), chunk by chunk,
    are read by a long short-term memory of each weight, which writes fast weights for the task. Those of the one that
    classifies (W), image by image, are turned into fast weights of each image by a small network of each weight. A
    query takes the mean of the images' fast weights, by how near it is. No meta-gradient flows through gradients.

    The fast units are leaky (the paper: ReLU): else what is written at first may silence all of them for ever. Fast
    weights stand in the last two layers alone, as in the paper on mini-ImageNet. The loss of the comparing network
    holds each image against the mean of its class (the paper: a softmax of its own, or contrastive); it has part in
    the meta-loss. Similarities are divided by a temperature, without which five images weigh nearly the same.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: from inputs to features [R, D].
        n_way: N.
        hidden: units of the two networks.
        units: of the memory that writes the task's fast weights.
        chunks: parts of the support set whose gradients it reads.
        range: sizes of gradients from e^-range to 1 are told apart.
        temperature: of similarities, > 0; the paper's is 1.
        comparing: weight of the comparing network's loss in the meta-loss.
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
    Reference: Munkhdalai, Yu. Meta Networks. ICML 2017. arXiv:1703.00837, algorithm 1.
    """

    goal = "goal"

    def __init__(
        self,
        backbone: nn.Module,
        n_way: int,
        hidden: PositiveInt,
        units: PositiveInt,
        chunks: Annotated[PositiveInt, UpTo("support examples of a training task")],
        range: PositiveFloat,
        temperature: PositiveFloat,
        comparing: NonNegativeFloat,
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(engine, task_chunk)
        self.backbone, self.chunks, self.range, self.temperature = backbone, chunks, range, temperature
        self.comparing = comparing
        features = int(backbone.out_features)  # type: ignore[arg-type]
        self.compare = nn.ModuleDict({"first": nn.Linear(features, hidden)})  # Q
        self.classify = nn.ModuleDict({"first": nn.Linear(features, hidden), "head": nn.Linear(hidden, n_way)})  # W
        self.task_writer = TaskWriter(units)  # d
        layers = [nn.Linear(2, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 1)]
        self.image_writer = nn.Sequential(*layers)  # m

    def adapt(self, params: Params, support: Examples, n_way: int) -> Read:
        classes = one_hot(support.y, n_way, support.x.dtype)
        if not self.training:
            return Read(support.x, classes, classes.new_zeros(()))
        known = call(self.backbone, within(params, "backbone"), support.x)
        return Read(support.x, classes, self.find_comparing_loss(within(params, "compare"), known, classes))

    def predict(self, params: Params, state: Read, x: Tensor) -> Tensor:
        known, asked = embed_together(self.backbone, within(params, "backbone"), state.x, x)
        slow_q, slow_w = within(params, "compare"), within(params, "classify")
        fast_q = self.write_for_task(params, slow_q, known, state.classes)
        fast_w = self.write_for_images(params, slow_w, known, state.classes)  # [S, weights]
        keys, queries = (compare(slow_q, fast_q, side) for side in (known, asked))
        near = find_cosines(queries, keys) / self.temperature  # [M, S]
        mixed = torch.softmax(near, -1) @ fast_w
        return classify(slow_w, unflatten(mixed, slow_w), asked)

    def score(self, params: Params, state: Read, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        scores = super().score(params, state, output, y)
        if not self.training:
            return scores
        return scores | {"goal": scores["loss"] + self.comparing * state.comparing, "comparing": state.comparing}

    def write_for_task(self, params: Params, slow: Params, known: Tensor, classes: Tensor) -> Params:
        """Write the fast weights of the comparing network, from its gradients on chunks of the support set."""
        places = torch.arange(len(known), device=known.device)
        seen = []
        for number in range(min(self.chunks, len(known))):
            mine = places[number :: min(self.chunks, len(known))]

            def loss(at: Params, mine: Tensor = mine) -> Tensor:
                return self.find_comparing_loss(at, known.detach(), classes, mine)

            seen.append(flatten(gradient(loss, slow, first_order=True)))
        told = preprocess(torch.stack(seen), self.range)  # [T, weights, 2]
        return unflatten(call(self.task_writer, within(params, "task_writer"), told), slow)

    def write_for_images(self, params: Params, slow: Params, known: Tensor, classes: Tensor) -> Tensor:
        """Write fast weights of the classifying network for each support image [S, weights], from its gradient."""
        fixed = {name: value.detach() for name, value in slow.items()}

        def loss(at: Params, row: Tensor, label: Tensor) -> Tensor:
            return -(torch.log_softmax(classify(at, None, row[None])[0], -1) * label).sum()

        grads = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(fixed, known.detach(), classes)
        flat = torch.cat([value.flatten(1) for value in grads.values()], 1).detach()
        written: Tensor = call(self.image_writer, within(params, "image_writer"), preprocess(flat, self.range))
        return written[..., 0]

    def find_comparing_loss(self, at: Params, known: Tensor, classes: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the cross-entropy of some rows (None: all) of features [S, D], by how near they are to class means."""
        keys = compare(at, None, known)
        near = F.normalize(keys, dim=-1) @ F.normalize(average_classes(keys, classes), dim=-1).T / self.temperature
        each = -(torch.log_softmax(near, -1) * classes).sum(-1)
        return (each if rows is None else each[rows]).mean()


class TaskWriter(nn.Module):
    """Reads gradients [T, n, 2] one after the other with a memory of each weight, and writes n fast weights."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = units
        self.cell, self.head = LSTMCell(2, units, units), nn.Linear(units, 1)

    def forward(self, told: Tensor) -> Tensor:
        hidden = cell = told.new_zeros(told.shape[1], self.units)
        for one in told:
            hidden, cell = self.cell(one, hidden, cell)
        out: Tensor = self.head(hidden)[:, 0]
        return out


def compare(slow: Params, fast: Params | None, x: Tensor) -> Tensor:
    """Return the comparing network's output [R, hidden] of features [R, D]: slow and fast beside each other."""
    out = F.relu(F.linear(x, slow["first.weight"], slow["first.bias"]))
    return out if fast is None else out + F.leaky_relu(F.linear(x, fast["first.weight"], fast["first.bias"]))


def classify(slow: Params, fast: Params | None, x: Tensor) -> Tensor:
    """Return logits [R, N] of features [R, D]; fast weights are those of each row, [R, ...]."""
    hidden = F.relu(F.linear(x, slow["first.weight"], slow["first.bias"]))
    if fast is None:
        return F.linear(hidden, slow["head.weight"], slow["head.bias"])
    hidden = hidden + F.leaky_relu(torch.einsum("rhd,rd->rh", fast["first.weight"], x) + fast["first.bias"])
    added = torch.einsum("rnh,rh->rn", fast["head.weight"], hidden) + fast["head.bias"]
    return F.linear(hidden, slow["head.weight"], slow["head.bias"]) + added
