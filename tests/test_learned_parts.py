"""The LSTM meta-learner, generated classifiers and task-agnostic MAML, in float64, where the answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import maml_settings
from test_gradients import INNER_LR, batch, conv4, furthest, maml, meta_gradient
from torch import Tensor, nn

from metarun.algos.gradient.taml import TAML, find_entropy, measure_inequality
from metarun.algos.metric.hypernet import HyperNet
from metarun.algos.metric.protonet import ProtoNet
from metarun.algos.optimizer.coordinates import preprocess
from metarun.algos.optimizer.lstm_learner import LSTMLearner
from metarun.core.objectives import classification

pytestmark = pytest.mark.usefixtures("doubles")


def lstm_learner(chunk: int, steps: int = 2) -> LSTMLearner:
    backbone = conv4()
    return LSTMLearner(backbone, 3, classification, steps, 3, 4, 0.01, "vectorized", chunk)


@pytest.mark.parametrize("chunk", [1, 4])
def test_gates_that_are_open_and_constant_make_first_order_maml(chunk: int) -> None:
    """The forget gate is 1 to 17 digits, the input gate the inner rate; the meta-gradient of the weights agrees."""
    learner, fomaml = lstm_learner(chunk), maml("loop", first_order=True)
    learner.net.load_state_dict(fomaml.net.state_dict())
    with torch.no_grad():
        for layer in (learner.updater.put, learner.updater.keep):
            layer.weight.zero_()
        learner.updater.keep.bias.fill_(40)
        learner.updater.put.bias.fill_(math.log(INNER_LR / (1 - INNER_LR)))
    found, expected = meta_gradient(learner, batch()), meta_gradient(fomaml, batch())
    assert furthest({name: found[name] for name in expected}, expected) < 1e-9


def test_a_loop_over_tasks_and_vmap_learn_the_same_optimizer() -> None:
    torch.manual_seed(3)
    loop, together = lstm_learner(1), lstm_learner(4)
    for parameter in loop.updater.parameters():
        nn.init.normal_(parameter, std=0.3)
    together.load_state_dict(loop.state_dict())
    found, expected = meta_gradient(together, batch()), meta_gradient(loop, batch())
    assert furthest(found, expected) < 1e-9
    assert all(expected[f"updater.{name}"].abs().sum() > 0 for name in ("lstm.gates.weight", "put.bias", "keep.weight"))


def test_an_update_is_that_of_the_equations() -> None:
    """Of three weights, two steps, gate by gate with torch's own cell."""
    torch.manual_seed(0)
    updater = lstm_learner(1).updater
    for parameter in updater.parameters():
        nn.init.normal_(parameter)
    cell = nn.LSTMCell(4, 4, bias=True)
    with torch.no_grad():
        whole = updater.lstm.gates.weight  # put, keep, new, show, as torch orders them
        cell.weight_ih.copy_(whole[:, :4])
        cell.weight_hh.copy_(whole[:, 4:])
        cell.bias_ih.copy_(updater.lstm.gates.bias)
        cell.bias_hh.zero_()
    weights, memory = torch.tensor([1.0, -2.0, 0.5]), updater.start(torch.zeros(3))
    plain, state = weights.clone(), (torch.zeros(3, 4), torch.zeros(3, 4))
    put, keep = torch.zeros(3), torch.ones(3)
    for grads, loss in (
        (torch.tensor([0.3, -1e-6, 2.0]), torch.tensor(0.7)),
        (torch.tensor([0.0, 5.0, -0.1]), torch.tensor(0.2)),
    ):
        weights, memory = updater(weights, grads, loss, memory)
        state = cell(torch.cat([preprocess(grads), preprocess(loss).expand(3, -1)], 1), state)
        put, keep = (
            torch.sigmoid(torch.cat([state[0], plain[:, None], gate[:, None]], 1) @ layer.weight[0] + layer.bias)
            for layer, gate in ((updater.put, put), (updater.keep, keep))
        )
        plain = keep * plain - put * grads
    assert torch.allclose(weights, plain, atol=1e-12)


def test_it_starts_as_gradient_descent_and_says_how_many_steps_it_takes() -> None:
    learner = lstm_learner(1)
    assert learner.updater.put.bias.sigmoid().item() == pytest.approx(0.01)
    assert 4 < learner.updater.keep.bias.item() < 5
    assert learner.describe()["inner_steps"] == {"train": 2, "test": 3}


def test_numbers_of_all_sizes_become_moderate_ones() -> None:
    """e^-5 is large with p = 10, and e^-12 small."""
    found = preprocess(torch.tensor([math.exp(-5), -math.exp(3), math.exp(-12), 0.0]))
    assert found.tolist() == [
        [pytest.approx(-0.5), 1], [pytest.approx(0.3), -1], [-1, pytest.approx(math.exp(-2))], [-1, 0]
    ]  # fmt: skip


class Prototypes(nn.Module):
    """Generates 2 c and -|c|^2 of a class's mean c."""

    def forward(self, told: Tensor) -> Tensor:
        mean = sum(told.chunk(2, 1))
        return torch.cat([2 * mean, -mean.square().sum(1, keepdim=True)], 1)


def test_a_generator_of_prototypes_is_a_prototypical_network() -> None:
    """Logits differ by the square of the query's embedding alone, which all classes share."""
    learner, protonet = HyperNet(conv4(), 8, 2, "auto", 1), ProtoNet(conv4(), "euclidean", 1.0, "auto", 1)
    learner.generator = Prototypes()
    protonet.load_state_dict(learner.state_dict())
    assert furthest(meta_gradient(learner, batch()), meta_gradient(protonet, batch())) < 1e-9


@pytest.mark.parametrize("bn", ["transductive", "support"])
def test_generated_classifiers_follow_their_classes_and_vmap_a_loop(bn: str) -> None:
    loop, together = (HyperNet(conv4(bn), 8, 2, "auto", chunk) for chunk in (1, 4))
    together.load_state_dict(loop.state_dict())
    tasks = batch()
    assert furthest(meta_gradient(together, tasks), meta_gradient(loop, tasks)) < 1e-9
    theta = loop.theta()
    one = tasks.tasks(0, 1)
    support = type(one.support)(one.support.x[0], one.support.y[0])
    logits = loop.predict(theta, loop.adapt(theta, support, 3), one.query.x[0])
    turned = type(one.support)(one.support.x[0], (one.support.y[0] + 1) % 3)
    moved = loop.predict(theta, loop.adapt(theta, turned, 3), one.query.x[0])
    assert torch.allclose(moved[:, [1, 2, 0]], logits, atol=1e-12)


def test_generated_logits_begin_with_a_variance_near_one() -> None:
    torch.manual_seed(0)
    learner = HyperNet(conv4(), 128, 2, "auto", 1)
    features = int(learner.backbone.out_features)
    told = torch.relu(torch.randn(200, 2 * features))
    weights = learner.generator(told)
    logits = torch.randn(50, features) @ weights[:, :-1].T
    assert 0.2 < logits.var().item() < 3


def taml(bias: str, weight: float, chunk: int = 4) -> TAML:
    settings = maml_settings(INNER_LR, 2, "vectorized", chunk)
    return TAML(conv4(), 3, classification, 3, bias=bias, weight=weight, **settings)


@pytest.mark.parametrize("bias", ["entropy", "theil", "gini", "log_variance"])
def test_without_its_term_it_is_maml_and_with_it_another(bias: str) -> None:
    plain, without, other = maml("vmap"), taml(bias, 0.0), taml(bias, 0.5)
    for learner in (without, other):
        learner.load_state_dict(plain.state_dict())
    expected = meta_gradient(plain, batch())
    assert furthest(meta_gradient(without, batch()), expected) < 1e-12
    assert furthest(meta_gradient(other, batch()), expected) > 1e-4
    assert furthest(plain.eval().evaluate(batch()), other.eval().evaluate(batch())) < 1e-12


@pytest.mark.parametrize("bias", ["entropy", "gini"])
def test_the_term_is_of_the_whole_meta_batch_however_it_is_computed(bias: str) -> None:
    one, chunked = taml(bias, 0.5), taml(bias, 0.5, 2)
    chunked.load_state_dict(one.state_dict())
    assert furthest(meta_gradient(chunked, batch()), meta_gradient(one, batch())) < 1e-9
    one.train()
    _, metrics = one.meta_loss(batch())
    if bias == "entropy":
        assert metrics["bias"].item() == pytest.approx((metrics["entropy_after"] - metrics["entropy_before"]).item())


def test_measures_of_inequality_are_the_textbooks() -> None:
    """Theil of 1, 2, 3, 4 is 0.106440, Gini 0.25; the variance of logs around the log of the mean, 0.286."""
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = {"theil": 0.106440, "gini": 0.25, "log_variance": sum(math.log(x / 2.5) ** 2 for x in (1, 2, 3, 4)) / 4}
    for measure, value in expected.items():
        assert measure_inequality(losses, measure).item() == pytest.approx(value, abs=1e-6)
        assert measure_inequality(7 * losses, measure).item() == pytest.approx(value, abs=1e-6)
        assert measure_inequality(torch.full((5,), 0.3), measure).item() == pytest.approx(0, abs=1e-12)


def test_entropy_is_greatest_where_nothing_is_predicted() -> None:
    assert find_entropy(torch.zeros(4, 5)).item() == pytest.approx(math.log(5))
    assert find_entropy(torch.tensor([[50.0, 0.0]])).item() == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match=r"algo.bias=entropy is for classes"):
        TAML(conv4(), 3, classification, 0, bias="entropy", weight=1.0, **maml_settings(INNER_LR, 2, "vectorized", 1))
