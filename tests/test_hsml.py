"""Gated initial weights: MAML where all gates are open, soft clusters by hand, and functions of four families."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import maml_settings
from test_gradients import furthest, meta_gradient
from torch import nn

from metarun.algos.gradient.hsml import HSML, Tree
from metarun.algos.gradient.maml import MAML
from metarun.backbones.mlp import MLP
from metarun.core.objectives import regression
from metarun.core.tasks import EpisodePlan, EpisodeShape, Examples
from metarun.data.mixture import FAMILIES, Mixture

pytestmark = pytest.mark.usefixtures("doubles")

PLAN = EpisodePlan(EpisodeShape(0, 5, 7), EpisodeShape(0, 5, 40), 0, 0)


def mixture(noise: float = 0.0) -> Mixture:
    return Mixture(PLAN, torch.device("cpu"), [-5.0, 5.0], noise)


def hsml(chunk: int = 1, **changed: Any) -> HSML:
    torch.manual_seed(0)
    own = {"hidden": 6, "clusters": [4, 2, 1], "reconstruction": 0.0} | maml_settings(0.01, 2, "vectorized", chunk)
    return HSML((1,), MLP((1,), "none", (5,)), 1, regression, **own | changed)


@pytest.mark.parametrize("chunk", [1, 4])
def test_open_gates_make_maml(chunk: int) -> None:
    """sigmoid(40) is 1 to 17 digits."""
    learner = hsml(chunk)
    plain = MAML(MLP((1,), "none", (5,)), 1, regression, **maml_settings(0.01, 2, "vectorized", chunk))
    plain.net.load_state_dict(learner.net.state_dict())
    nn.init.zeros_(learner.gate.weight)
    nn.init.constant_(learner.gate.bias, 40.0)
    tasks = mixture().batch("train", np.arange(4))
    expected = meta_gradient(plain, tasks)
    found = meta_gradient(learner, tasks)
    assert furthest({name: found[name] for name in expected}, expected) < 1e-9


def test_a_tree_is_that_of_the_equations() -> None:
    torch.manual_seed(0)
    tree, task = Tree(3, [4, 2, 1]), torch.randn(3)
    below = [task]
    for centres, layer in zip([*tree.centres, torch.zeros(1, 3)], tree.maps, strict=True):
        shares = []
        for h in below:
            near = np.array([np.exp(-((h - c) ** 2).sum().item() / 2) for c in centres])
            shares.append(near / near.sum())
        below = [
            sum(share[k] * torch.tanh(layer(h)) for share, h in zip(shares, below, strict=True))
            for k in range(len(centres))
        ]
    assert torch.allclose(tree(task), below[0], atol=1e-12)


def test_one_cluster_has_no_share_to_give() -> None:
    """A single gate: the task embedding through one layer, whatever the centre."""
    torch.manual_seed(0)
    tree, task = Tree(3, [1]), torch.randn(3)
    assert torch.allclose(tree(task), tree.maps[0](task).tanh(), atol=1e-12)


def test_gates_tell_tasks_apart_and_not_the_order_of_points() -> None:
    learner, tasks = hsml(), mixture().batch("train", np.arange(2))
    support = [Examples(tasks.support.x[task], tasks.support.y[task]) for task in range(2)]
    one, two = (learner.find_gates(learner.theta(), side) for side in support)
    turned = learner.find_gates(learner.theta(), Examples(support[0].x.flip(0), support[0].y.flip(0)))
    for name, gate in one.items():
        assert ((gate > 0) & (gate < 1)).all()
        assert torch.allclose(gate, turned[name], atol=1e-12)
        assert not torch.allclose(gate, two[name], atol=1e-6)


def test_reconstruction_is_paid_in_training() -> None:
    plain, paying = hsml(), hsml(reconstruction=0.5)
    paying.load_state_dict(plain.state_dict())
    tasks = mixture().batch("train", np.arange(3))
    (one, _), (other, metrics) = (learner.train().meta_loss(tasks) for learner in (plain, paying))
    assert (other - one).item() == pytest.approx(0.5 * metrics["reconstruction"].item())
    assert torch.equal(plain.eval().evaluate(tasks)["loss"], paying.eval().evaluate(tasks)["loss"])


def test_families_are_equally_frequent_and_each_is_what_it_says() -> None:
    """Polynomials are fitted exactly by their degree and no lower one; a sine is not fitted by a cubic."""
    source = mixture()
    names, batch = source.find_families("test", np.arange(400)), source.batch("test", np.arange(400))
    assert all(70 < names.count(name) < 130 for name in FAMILIES)
    ranges = {"line": (3, 3), "quadratic": (0.2, 2, 3), "cubic": (0.1, 0.2, 2, 3)}
    worst: dict[str, np.ndarray] = {}
    for task, name in enumerate(names):
        x, y = (side[task, :, 0].numpy() for side in batch.query)
        if name == "sine":
            assert np.abs(np.polyval(np.polyfit(x, y, 3), x) - y).max() > 1e-4
            continue
        degree = len(ranges[name]) - 1
        found = np.polyfit(x, y, degree)
        assert np.abs(np.polyval(found, x) - y).max() < 1e-8
        worst[name] = np.maximum(worst.get(name, np.zeros(degree + 1)), np.abs(found))
    for name, ends in ranges.items():
        assert (worst[name] <= np.array(ends) + 1e-9).all()
        assert (worst[name] > 0.9 * np.array(ends)).all()


def test_noise_is_added_to_values() -> None:
    one, other = (source.batch("test", np.arange(50)) for source in (mixture(), mixture(0.3)))
    assert torch.equal(one.query.x, other.query.x)
    assert (one.query.y - other.query.y).std().item() == pytest.approx(0.3, rel=0.05)
