"""Methods that read the support set: against plain loops, what depends on the order, and what queries see."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from test_contract import parts_of
from torch import Tensor, nn

from metarun.algos.base.gaussian import bound_gaussian
from metarun.algos.memory.incontext import Block, InContext
from metarun.algos.memory.mann import MANN, Controller, delay_labels, find_least_used
from metarun.algos.memory.snail import SNAIL, Attention, Convolution, Positions, Sequence
from metarun.core.tasks import Batch, Examples

READERS = ("incontext", "snail", "mann")

Settings = Callable[..., DictConfig]


class Plain(nn.Module):
    """A backbone that hands its inputs on."""

    out_features = 3

    def forward(self, x: Tensor) -> Tensor:
        return x


class OneNumber(Plain):
    out_features = 1


class Points(Plain):
    out_features = 32


def reader(kind: type, n_way: int = 4, **changed: Any) -> Any:
    own = {
        InContext: {"width": 8, "layers": 2, "heads": 2},
        SNAIL: {"length": 5, "filters": 4, "attention": [[3, 2], [4, 3]]},
        MANN: {"units": 6, "rows": 7, "size": 3, "reads": 2, "decay": 0.9, "temperature": 0.5, "label": "late"},
    }[kind]
    torch.manual_seed(0)
    outputs = n_way or 2
    made = kind(Plain(), outputs, n_way, min_std=0.1, engine="vectorized", task_chunk=0, **own | changed)
    return made.double().eval()


def task(n_way: int = 4, queries: int = 5) -> Batch:
    draw = torch.Generator().manual_seed(1)
    x, q = (torch.randn(1, n, 3, generator=draw, dtype=torch.float64) for n in (8, queries))
    if n_way:
        return Batch(
            Examples(x, torch.arange(8)[None] % n_way), Examples(q, torch.arange(queries)[None] % n_way), n_way
        )
    y, z = (torch.randn(1, n, 2, generator=draw, dtype=torch.float64) for n in (8, queries))
    return Batch(Examples(x, y), Examples(q, z), 0)


def outputs_of(learner: Any, batch: Batch) -> Tensor:
    theta = learner.theta()
    support = Examples(batch.support.x[0], batch.support.y[0])
    predicted: Tensor = learner.predict(theta, learner.adapt(theta, support, batch.n_way), batch.query.x[0])
    return predicted


@pytest.mark.parametrize("n_way", [4, 0])
@pytest.mark.parametrize("kind", [InContext, SNAIL, MANN])
def test_a_query_sees_the_support_set_and_no_other_query(kind: type, n_way: int) -> None:
    learner, batch = reader(kind, n_way), task(n_way)
    before = outputs_of(learner, batch)
    assert before.shape == (5, n_way or 4)
    batch.query.x[0, 2] += 1
    batch.query.y[0] = batch.query.y[0].flip(0)
    after = outputs_of(learner, batch)
    same = [0, 1, 3, 4]
    assert torch.equal(after[same], before[same])
    assert not torch.allclose(after[2], before[2])
    batch.support.y[0, 0] = batch.support.y[0, 1]
    assert not torch.allclose(outputs_of(learner, batch)[same], before[same])


@pytest.mark.parametrize(("kind", "matters"), [(InContext, False), (SNAIL, True), (MANN, True)])
def test_the_order_of_the_support_set_matters_to_a_sequence_alone(kind: type, matters: bool) -> None:
    learner, batch = reader(kind), task()
    order = torch.tensor([3, 0, 7, 1, 5, 2, 6, 4])
    turned = Batch(Examples(batch.support.x[:, order], batch.support.y[:, order]), batch.query, 4)
    assert torch.allclose(outputs_of(learner, turned), outputs_of(learner, batch), atol=1e-12) is not matters


@pytest.mark.parametrize("kind", [SNAIL, MANN])
def test_the_order_is_drawn_in_training_and_the_same_in_tests(kind: type) -> None:
    learner, batch = reader(kind), task()
    assert torch.equal(outputs_of(learner, batch), outputs_of(learner, batch))
    learner.train()
    torch.manual_seed(0)
    drawn = [outputs_of(learner, batch) for _ in range(3)]
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])


@pytest.mark.parametrize("algo", READERS)
def test_classes_of_functions_are_gaussians_and_their_predictions_are_told(settings: Settings, algo: str) -> None:
    parts = parts_of(settings(f"algo={algo}", "data=gp", "data.train.k_shot=4"))
    batch = next(parts.source.episodes("test", 0, 2))
    learner = parts.learner.eval()
    scores, told = learner.evaluate(batch), learner.predictions(batch)  # type: ignore[operator]
    density = torch.distributions.Normal(told.mean, told.std).log_prob(batch.query.y).sum(-1).mean(-1)
    assert torch.allclose(scores["log_likelihood"], density, atol=1e-5)
    assert torch.equal(scores["loss"], -scores["log_likelihood"])
    assert torch.allclose(scores["mse"], (told.mean - batch.query.y).square().mean((1, 2)), atol=1e-6)
    assert (told.std > 0.01).all()


def test_a_bounded_gaussian_has_its_least_deviation() -> None:
    """softplus(0) = ln 2; far below zero it vanishes."""
    found = bound_gaussian(torch.tensor([[1.0, -2.0, 0.0, -100.0]]), 0.25)
    assert found.mean.tolist() == [[1, -2]]
    assert found.stddev[0].tolist() == pytest.approx([0.25 + 0.75 * math.log(2), 0.25])


def test_a_block_of_the_transformer_is_torchs_attention() -> None:
    """A norm before each part, whose output is added; GELU in between."""
    torch.manual_seed(0)
    block, theirs = Block(8, 2).double(), nn.MultiheadAttention(8, 2, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([block.query.weight, block.key.weight, block.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([block.query.bias, torch.zeros(8), block.value.bias]))
        theirs.out_proj.weight.copy_(block.join.weight)
        theirs.out_proj.bias.copy_(block.join.bias)
    tokens = torch.randn(6, 8, dtype=torch.float64)
    normal = nn.functional.layer_norm(tokens, (8,))[None]
    read, _ = theirs(normal, normal[:, :4], normal[:, :4])
    between = tokens + read[0]
    connected = block.connected(nn.functional.layer_norm(between, (8,)))
    assert torch.allclose(block(tokens, 4), between + connected, atol=1e-12)


def test_positions_are_those_of_a_whole_causal_sequence() -> None:
    """For each query, the sequence of the support set and that query, position by position."""
    torch.manual_seed(0)
    net = Sequence(5, length=6, filters=4, attention=[[3, 2], [4, 3]], outputs=2).double()
    known, asked = torch.randn(7, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    kinds = [type(block) for block in net.blocks]
    assert kinds == [Attention, Convolution, Convolution, Convolution, Attention]
    assert [block.dilation for block in net.blocks if isinstance(block, Convolution)] == [1, 2, 4]
    for number, query in enumerate(asked):
        rows = [*known, query]
        for block in net.blocks:
            rows = [plainly(block, rows[: place + 1]) for place in range(len(rows))]
        assert torch.allclose(net(known, asked)[number], net.head(rows[-1]), atol=1e-12)


def plainly(block: nn.Module, rows: list[Tensor]) -> Tensor:
    """A block's output at the last of the rows."""
    now = rows[-1]
    if isinstance(block, Convolution):
        before = rows[-1 - block.dilation] if block.dilation < len(rows) else torch.zeros_like(now)
        value, gate = block.both(torch.cat([before, now])).chunk(2)
        return torch.cat([now, torch.tanh(value) * torch.sigmoid(gate)])
    assert isinstance(block, Attention)
    scores = torch.stack([block.query(now) @ block.key(row) for row in rows]) / math.sqrt(block.keys)
    read = sum(weight * block.value(row) for weight, row in zip(torch.softmax(scores, 0), rows, strict=True))
    return torch.cat([now, read])  # type: ignore[list-item]


def test_attention_to_labels_alone_is_a_matching_network() -> None:
    """Keys are the embeddings, values the labels: a softmax over dot products, in which the query's own is left out
    by a key of its own that is far from it."""
    block = Attention(5, 2, 3)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
        block.query.weight[:, :2] = block.key.weight[:, :2] = torch.eye(2) * 2**0.25
        block.value.weight[:, 2:] = torch.eye(3)
    x, labels = torch.randn(6, 2) * 0.5, nn.functional.one_hot(torch.arange(6) % 3).float()
    query = torch.tensor([[0.0, 30.0], [30.0, 0.0]])
    _, last = block(Positions(torch.cat([x, labels], 1), torch.cat([query, torch.zeros(2, 3)], 1)))
    weights = torch.softmax(torch.cat([query @ x.T, (query * query).sum(1, keepdim=True)], 1), 1)
    assert torch.allclose(last[:, 5:], weights[:, :6] @ labels, atol=1e-6)


def test_the_least_used_rows_are_marked() -> None:
    assert find_least_used(torch.tensor([3.0, 1.0, 2.0, 0.5]), 2).tolist() == [0, 1, 0, 1]
    assert find_least_used(torch.zeros(4), 3).tolist() == [1, 1, 1, 0]


def test_the_controller_writes_and_reads_as_the_equations_say() -> None:
    """Equations 2 to 8 row by row and head by head, in numpy."""
    torch.manual_seed(0)
    net = Controller(inputs=5, units=4, rows=3, size=2, reads=2, decay=0.9, temperature=0.3, outputs=2).double()
    support, targets = torch.randn(4, 3, dtype=torch.float64), torch.eye(2, dtype=torch.float64)[[0, 1, 1, 0]]
    query = torch.randn(2, 3, dtype=torch.float64)
    predicted = net(*delay_labels(support, targets, query)).detach().numpy()

    def layer(module: nn.Linear, x: Any) -> Any:
        return module.weight.detach().numpy() @ x + module.bias.detach().numpy()

    def sigmoid(x: Any) -> Any:
        return 1 / (1 + np.exp(-x))

    def step(x: Any, hidden: Any, cell: Any, read: Any) -> tuple[Any, Any]:
        put, keep, new, show = np.split(layer(net.lstm.gates, np.concatenate([x, hidden, read])), 4)
        cell = sigmoid(keep) * cell + sigmoid(put) * np.tanh(new)
        return sigmoid(show) * np.tanh(cell), cell

    def attend(key: Any, rows: Any) -> Any:
        near = np.array([key @ row / np.linalg.norm(key) / max(np.linalg.norm(row), 1e-12) for row in rows])
        return np.exp(near / 0.3) / np.exp(near / 0.3).sum()

    hidden, cell, read, label = np.zeros(4), np.zeros(4), np.zeros(4), np.zeros(2)
    rows, usage, before = np.full((3, 2), 1e-6), np.zeros(3), np.zeros((2, 3))
    for x, y in zip(support.numpy(), targets.numpy(), strict=True):
        hidden, cell = step(np.concatenate([x, label]), hidden, cell, read)
        keys, gates = np.tanh(layer(net.key, hidden)).reshape(2, 2), sigmoid(layer(net.gate, hidden))
        least = np.zeros(3)
        least[np.argsort(usage, kind="stable")[:2]] = 1
        weights = np.stack([gates[h] * before[h] + (1 - gates[h]) * least for h in range(2)])
        rows = rows * (1 - least)[:, None]
        for h in range(2):
            rows = rows + np.outer(weights[h], keys[h])
        before = np.stack([attend(key, rows) for key in keys])
        usage = 0.9 * usage + before.sum(0) + weights.sum(0)
        read, label = (before @ rows).reshape(-1), y
    for number, x in enumerate(query.numpy()):
        asked, _ = step(np.concatenate([x, label]), hidden, cell, read)
        keys = np.tanh(layer(net.key, asked)).reshape(2, 2)
        seen = np.concatenate([attend(key, rows) @ rows for key in keys])
        expected = layer(net.head, np.concatenate([asked, seen]))
        assert predicted[number] == pytest.approx(expected, abs=1e-12)


def test_a_label_comes_with_its_own_image_or_with_the_next_one() -> None:
    support, targets = torch.tensor([[5.0], [6.0], [7.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    known, asked = delay_labels(support, targets, torch.tensor([[8.0], [9.0]]))
    assert known.tolist() == [[5, 0, 0], [6, 0, 1], [7, 1, 0]]
    assert asked.tolist() == [[8, 0, 1], [9, 0, 1]]
    own = torch.tensor([[5.0, 0, 1, 0], [6, 1, 0, 0], [7, 0, 1, 0], [8, 0, 0, 1]])  # the last number marks queries
    learner = MANN(OneNumber(), 2, 2, 4, 3, 2, 2, 0.9, 0.3, "own", 0.1, "vectorized", 0).eval()
    batch = Batch(Examples(support[None], targets.argmax(-1)[None]), Examples(torch.full((1, 1, 1), 8.0), targets), 2)
    assert torch.allclose(outputs_of(learner, batch), learner.controller(own[learner.draw_order(targets)], own[3:]))


@pytest.mark.slow
def test_the_memory_learns_to_read_labels_off_points_of_classes_that_it_never_saw() -> None:
    """Five new points a task, queries near them. Chance is 20 %; with temperature 1 it has 23 % then."""
    torch.manual_seed(0)
    learner = MANN(Points(), 5, 5, 100, 16, 40, 2, 0.95, 0.1, "late", 0.01, "vectorized", 0).train()
    optim, right = torch.optim.Adam(learner.parameters(), 0.003), []
    for _ in range(300):
        points = nn.functional.normalize(torch.randn(16, 5, 32), dim=-1) * 32**0.5
        x, query = points + 0.3 * torch.randn(16, 5, 32), points + 0.3 * torch.randn(16, 5, 32)
        y = torch.rand(16, 5).argsort(-1)
        optim.zero_grad()
        right.append(float(learner.meta_gradient(Batch(Examples(x, y), Examples(query, y), 5))["accuracy"]))
        optim.step()
    assert np.mean(right[:50]) < 0.3
    assert np.mean(right[-50:]) > 0.6


@pytest.mark.parametrize("n_way", [4, 0])
@pytest.mark.parametrize("kind", [InContext, SNAIL, MANN])
def test_no_parameter_is_without_use(kind: type, n_way: int) -> None:
    """Its gradient would be rounding alone, which Adam makes as large as any."""
    learner, batch = reader(kind, n_way).train(), task(n_way)
    torch.manual_seed(0)
    learner.meta_gradient(batch)
    assert {
        name: float(value.grad.norm()) for name, value in learner.named_parameters() if value.grad.norm() < 1e-9
    } == {}


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        (InContext, {"width": 9}, "algo.width=9 must be a multiple of algo.heads=2"),
        (SNAIL, {"attention": [[3]]}, r"algo.attention=\[\[3\]\] is not a list of pairs"),
        (MANN, {"reads": 8}, "algo.reads=8 is more than the rows of the memory, algo.rows=7"),
    ],
)
def test_what_cannot_be_built_is_refused(kind: type, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reader(kind, **changed)
