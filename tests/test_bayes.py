"""Distributions of weights: the exact posterior of a linear model, MAML where nothing is uncertain, and its price."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from conftest import inner_settings, maml_settings, noise_tasks
from test_gradients import INNER_LR, batch, conv4, furthest, maml, meta_gradient
from torch import Tensor

from metarun.algos.gradient.abml import ABML, measure_distance
from metarun.algos.gradient.anil import ANIL
from metarun.algos.gradient.mr_maml import MRMAML, measure_information
from metarun.backbones.mlp import MLP
from metarun.core.calibration import find_calibration_error
from metarun.core.episodes import draw_episodes
from metarun.core.objectives import classification
from metarun.core.tasks import Batch, EpisodeShape, Examples

pytestmark = pytest.mark.usefixtures("doubles")


def abml(backbone: Any, outputs: int, n_way: int, chunk: int = 1, **changed: Any) -> ABML:
    own = {
        "samples": 2, "test_samples": 4, "inner_kl": 1.0, "outer_kl": 1.0, "hyperprior": 0.0, "shape": 2.0,
        "rate": 0.5, "start_std": 0.1, "noise": math.sqrt(0.5),
    }  # fmt: skip
    return ABML(backbone, outputs, n_way, **own | inner_settings(INNER_LR, 2, "vectorized", chunk) | changed)


@pytest.mark.parametrize("chunk", [1, 4])
def test_weights_without_spread_or_price_make_maml(chunk: int) -> None:
    """Deviations of 1e-12: the outer loop then sees support and query set, of which the query part is MAML's."""
    learner, plain = abml(conv4(), 3, 3, chunk, start_std=1e-12, inner_kl=0.0, outer_kl=0.0), maml("vmap")
    learner.net.load_state_dict(plain.net.state_dict())
    plain.eval()
    expected, found = plain.evaluate(batch()), learner.eval().evaluate(batch())
    for name in ("loss", "accuracy"):
        assert torch.allclose(found[name], expected[name], atol=1e-9)
    tasks = batch()
    grads = meta_gradient(learner, tasks)
    rows = tasks.support.y.shape[1], tasks.query.y.shape[1]
    on_query, on_support = (
        meta_gradient(plain.train(), Batch(tasks.support, side, 3)) for side in (tasks.query, tasks.support)
    )
    mixed = {n: (rows[0] * on_support[n] + rows[1] * on_query[n]) / sum(rows) for n in on_query}
    assert furthest({name: grads[name] for name in mixed}, mixed) < 1e-8


def test_the_inner_loop_finds_the_exact_posterior_of_a_linear_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means are the posterior's, deviations those of its precision's diagonal: 3 inputs and a summand, 8 points.

    Draws at plus and minus 2 along each of the 4 axes have the moments of the normal distribution up to the third, so
    that expectations of squares are exact.
    """
    learner = abml(MLP((3,), "none", ()), 1, 0, noise=1.1, start_std=1.3, inner_lr=0.3, inner_steps=300).train()
    axes = torch.cat([2 * torch.eye(4), -2 * torch.eye(4)])
    monkeypatch.setattr(learner, "draw_noise", lambda times: axes.expand(times, -1, -1))
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(8, 3, generator=draw), torch.randn(8, 1, generator=draw)
    with torch.no_grad():
        state = learner.adapt(learner.theta(), Examples(x, y), 0)
    inputs = torch.cat([x, torch.ones(8, 1)], 1)
    before = torch.cat([learner.net.head.weight[0], learner.net.head.bias]).detach()
    precision = inputs.T @ inputs / 1.1**2 + torch.eye(4) / 1.3**2
    mean = torch.linalg.solve(precision, inputs.T @ y[:, 0] / 1.1**2 + before / 1.3**2)
    found = torch.cat([state.phi["mean.head.weight"][0], state.phi["mean.head.bias"]])
    spread = torch.cat([state.phi["log_std.head.weight"][0], state.phi["log_std.head.bias"]]).exp()
    assert (found - mean).abs().max() < 1e-7
    assert (spread**2 - 1 / precision.diagonal()).abs().max() < 1e-7


def test_the_bound_is_that_of_torchs_distributions() -> None:
    """No inner step but one of size 0: support and query set, the distance to the prior, and the price of theta."""
    learner = abml(MLP((1,), "none", (3,)), 1, 0, inner_lr=1e-300, hyperprior=0.25, start_std=0.3).train()
    draw = torch.Generator().manual_seed(0)
    x, y, z, t = (torch.randn(n, 1, generator=draw) for n in (4, 4, 6, 6))
    torch.manual_seed(5)
    scored = learner._score_task(learner.theta(), Examples(x, y), Examples(z, t), 0).scores["bound"]
    torch.manual_seed(5)
    noise = learner.draw_noise(4)[3]  # after two inner steps and the prediction
    weights = {name: value.detach() for name, value in learner.net.named_parameters()}
    fits = []
    for one in noise:
        place, net = 0, {}
        for name, value in weights.items():
            net[name] = value + 0.3 * one[place : place + value.numel()].reshape(value.shape)
            place += value.numel()
        hidden = torch.relu(torch.cat([x, z]) @ net["backbone.layers.0.weight"].T + net["backbone.layers.0.bias"])
        out = hidden @ net["head.weight"].T + net["head.bias"]
        fits.append(torch.distributions.Normal(out, math.sqrt(0.5)).log_prob(torch.cat([y, t])).mean())
    flat = torch.cat([value.flatten() for value in weights.values()])
    gamma = torch.distributions.Gamma(2.0, 0.5)
    normal = torch.distributions.Normal(0.0, 1.0)
    price = normal.log_prob(flat).sum() + len(flat) * gamma.log_prob(torch.tensor(1 / 0.09))
    constant = len(flat) * (-0.5 * math.log(2 * math.pi) + 2 * math.log(0.5) - math.lgamma(2.0))
    expected = -torch.stack(fits).mean() - 0.25 * (price - constant)
    assert scored.item() == pytest.approx(expected.item(), rel=1e-10)


def test_the_distance_is_torchs_divergence() -> None:
    draw = torch.Generator().manual_seed(0)
    one, other = ({f"{kind}.w": torch.randn(3, 2, generator=draw) for kind in ("mean", "log_std")} for _ in range(2))
    p, q = (torch.distributions.Normal(each["mean.w"], each["log_std.w"].exp()) for each in (one, other))
    expected = torch.distributions.kl_divergence(p, q).sum()
    assert measure_distance(one, other).item() == pytest.approx(expected.item())
    standard = torch.distributions.kl_divergence(p, torch.distributions.Normal(0.0, 1.0)).sum()
    assert measure_information([("w", one["mean.w"], one["log_std.w"])]).item() == pytest.approx(standard.item())


def test_probabilities_are_means_of_softmaxes() -> None:
    """And not the softmax of mean logits; so is the calibration error that is told."""
    learner, tasks = abml(conv4(), 3, 3, start_std=0.5).eval(), batch(1)
    support = Examples(tasks.support.x[0], tasks.support.y[0])
    state = learner.adapt(learner.theta(), support, 3)
    logits = torch.stack(
        [learner._run(net, support.x, tasks.query.x[0]) for net in learner.draw_nets(state.phi, state.noise[0])]
    )
    assert len(logits) == 4
    expected = logits.softmax(-1).mean(0)
    found = learner.predict(learner.theta(), state, tasks.query.x[0]).exp()
    assert torch.allclose(found, expected, atol=1e-12)
    assert not torch.allclose(found, logits.mean(0).softmax(-1), atol=1e-3)
    scores = learner.evaluate(tasks)
    assert scores["ece"].item() == pytest.approx(find_calibration_error(expected, tasks.query.y[0]), abs=1e-9)
    assert scores["log_likelihood"].item() == pytest.approx(
        expected[torch.arange(len(expected)), tasks.query.y[0]].log().mean().item()
    )


def test_functions_are_told_as_the_mixtures_mean_and_deviation() -> None:
    learner = abml(MLP((1,), "none", (4,)), 1, 0, start_std=0.4).eval()
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(1, 5, 1, generator=draw), torch.randn(1, 5, 1, generator=draw)
    told = learner.predictions(Batch(Examples(x, y), Examples(x, y), 0))
    state = learner.adapt(learner.theta(), Examples(x[0], y[0]), 0)
    each = torch.stack([learner._run(net, x[0], x[0]) for net in learner.draw_nets(state.phi, state.noise[0])])
    assert torch.allclose(told.mean[0], each.mean(0))
    assert torch.allclose(told.std[0] ** 2, each.var(0, correction=0) + 0.5)


def mr_maml(beta: float, std: float, chunk: int = 1) -> MRMAML:
    settings = maml_settings(INNER_LR, 2, "vectorized", chunk)
    return MRMAML(conv4(), 3, classification, beta=beta, start_std=std, **settings)


@pytest.mark.parametrize("chunk", [1, 4])
def test_shared_weights_that_are_free_and_certain_make_anil(chunk: int) -> None:
    learner, anil = mr_maml(0.0, 1e-12, chunk), maml("vmap", cls=ANIL)
    learner.net.load_state_dict(anil.net.state_dict())
    found, expected = meta_gradient(learner, batch()), meta_gradient(anil, batch())
    assert furthest({name: found[name] for name in expected}, expected) < 1e-9


def test_shared_weights_are_drawn_in_training_alone_and_their_price_is_paid() -> None:
    learner, free = mr_maml(0.01, 0.3), mr_maml(0.0, 0.3)
    free.load_state_dict(learner.state_dict())
    one, two = (learner.train().meta_loss(batch(1))[0].item() for _ in range(2))
    assert one != two
    assert torch.equal(learner.eval().evaluate(batch())["loss"], learner.evaluate(batch())["loss"])
    torch.manual_seed(0)
    with_price, metrics = learner.train().meta_loss(batch())
    torch.manual_seed(0)
    without, _ = free.train().meta_loss(batch())
    assert (with_price - without).item() == pytest.approx(0.01 * metrics["information"].item())


def labels_of(split: str, labels: str) -> list[set[int]]:
    """The labels that each class of a split has in 200 tasks."""
    source = noise_tasks(EpisodeShape(3, 1, 1), EpisodeShape(3, 1, 1), classes=11)
    source.fixed = labels == "fixed"
    [(drawn, n_way)] = source.draw_episodes(split, np.arange(200))
    found: list[set[int]] = [set() for _ in range(11)]
    for classes in drawn.classes:
        for label, number in enumerate(classes):
            found[number].add(label)
    assert n_way == 3
    return found


def test_fixed_labels_are_those_of_training_classes_alone() -> None:
    assert [labels == {number % 3} for number, labels in enumerate(labels_of("train", "fixed"))] == [True] * 11
    assert [labels == {0, 1, 2} for labels in labels_of("train", "shuffled")] == [True] * 11
    assert [labels == {0, 1, 2} for labels in labels_of("test", "fixed")] == [True] * 11


def test_classes_of_a_label_are_drawn_equally_often() -> None:
    """11 classes and 3 labels: 4, 4 and 3 classes."""
    drawn = draw_episodes(0, "train", np.arange(6000), np.full(11, 5), EpisodeShape(3, 1, 1), None, True)
    counts = np.bincount(drawn.classes.reshape(-1), minlength=11) / 6000
    assert counts == pytest.approx([1 / 4 if number % 3 < 2 else 1 / 3 for number in range(11)], abs=0.03)


def noise_of(learner: ABML) -> Tensor:
    return learner.draw_noise(1)[0]


def test_draws_come_in_opposite_pairs_and_are_the_same_in_tests() -> None:
    learner = abml(MLP((1,), "none", (2,)), 1, 0, samples=3, test_samples=6)
    assert len(noise_of(learner.train())) == 4
    assert not torch.equal(noise_of(learner), noise_of(learner))
    assert len(noise_of(learner.eval())) == 6
    assert torch.equal(noise_of(learner), noise_of(learner))
    assert noise_of(learner).sum().abs() < 1e-12
