"""MetaGAN in float64, where the answer is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from conftest import maml_settings
from test_gradients import INNER_LR, batch, conv4, furthest, maml, meta_gradient
from torch import Tensor

from metarun.algos.generative.generator import Adversarial, pass_as_real, tell_fake
from metarun.algos.generative.metagan import MetaGAN
from metarun.algos.generative.metagan_maml import MetaGANMAML
from metarun.algos.metric.protonet import ProtoNet
from metarun.core.tasks import Batch, Examples

pytestmark = pytest.mark.usefixtures("doubles")

LOOK = ([0.2], [0.5])
OWN = {"fakes": 4, "latent": 3, "width": 5, "filters": 2}


def on_protonet(weight: float, chunk: int = 1) -> MetaGAN:
    made = dict(OWN, fake_weight=weight)
    return MetaGAN(conv4(), (1, 28, 28), LOOK, "euclidean", 1.0, engine="auto", task_chunk=chunk, **made)  # type: ignore[arg-type]


def on_maml(weight: float, engine: str = "vectorized", chunk: int = 1) -> MetaGANMAML:
    settings: Any = maml_settings(INNER_LR, 2, engine, chunk) | OWN | {"fake_weight": weight}
    return MetaGANMAML(conv4(), 3, (1, 28, 28), LOOK, **settings)


def test_without_the_new_class_it_is_a_prototypical_network() -> None:
    learner, plain = on_protonet(0.0), ProtoNet(conv4(), "euclidean", 1.0, "auto", 1)
    plain.load_state_dict({name: value for name, value in learner.state_dict().items() if name.startswith("backbone")})
    with torch.no_grad():
        learner.fake.weight.zero_()
        learner.fake.bias.fill_(-1e5)
    expected = meta_gradient(plain, batch())
    found = meta_gradient(learner, batch())
    assert furthest({name: found[name] for name in expected}, expected) < 1e-12
    assert torch.equal(learner.eval().evaluate(batch())["loss"], plain.eval().evaluate(batch())["loss"])


def test_without_the_new_class_it_is_maml() -> None:
    learner, plain = on_maml(0.0), maml("loop")
    with torch.no_grad():
        learner.net.head.weight[3] = 0
        learner.net.head.bias[3] = -1e5
        plain.net.backbone.load_state_dict(learner.net.backbone.state_dict())
        plain.net.head.weight.copy_(learner.net.head.weight[:3])
        plain.net.head.bias.copy_(learner.net.head.bias[:3])
    expected = meta_gradient(plain, batch())
    found = meta_gradient(learner, batch())
    cut = {name: found[name][:3] if "head" in name else found[name] for name in expected}
    assert furthest(cut, expected) < 1e-12
    one, other = (each.eval().evaluate(batch())["loss"] for each in (learner, plain))
    assert torch.allclose(one, other, rtol=1e-12)


def test_the_losses_are_those_of_the_paper() -> None:
    """Odds 1 : 2 : 5, of which the last is for generated images."""
    logits = torch.tensor([[0.0, math.log(2), math.log(5)]])
    assert tell_fake(logits).item() == pytest.approx(-math.log(5 / 8))
    assert pass_as_real(logits).item() == pytest.approx(-math.log(3 / 8))


@pytest.mark.parametrize("build", [on_protonet, on_maml])
def test_each_player_descends_its_own_loss(build: Any) -> None:
    """The classifier's gradient with the generated images as constants, the generator's with the classifier as one:
    each by plain autograd of its loss alone."""
    learner: Adversarial = build(0.7).train()
    tasks = batch(1)
    learner.noise = torch.randn_like(learner.noise)
    learner.make = make_from_buffer(learner)  # type: ignore[method-assign]
    found = meta_gradient(learner, tasks)
    support, query = (Examples(side.x[0], side.y[0]) for side in tasks[:2])
    params = dict(learner.named_parameters())
    state = learner.adapt(params, support, 3)
    real = learner.tell_apart(params, state, query.x)
    fake = learner.tell_apart(params, state, learner.make(params, support.x))
    of_real = torch.nn.functional.cross_entropy(real, query.y)
    losses = {False: of_real - 0.7 * fake.log_softmax(1)[:, -1].mean(), True: pass_as_real(fake)}
    for name, value in params.items():
        own = losses[name.startswith("generator")]
        expected = torch.autograd.grad(own, value, retain_graph=True)[0]
        assert torch.allclose(found[name], expected, rtol=1e-8, atol=1e-12), name
    assert found["generator.encoder.0.weight"].abs().sum() > 0  # images depend on the task


def make_from_buffer(learner: Adversarial) -> Any:
    def make(params: dict[str, Tensor], support_x: Tensor) -> Tensor:
        features = learner.find_features(params, support_x).detach()
        made = {name[10:]: value for name, value in params.items() if name.startswith("generator.")}
        return torch.func.functional_call(learner.generator, made, (features, learner.noise))

    return make


@pytest.mark.parametrize("build", [on_protonet, on_maml])
def test_tasks_one_by_one_and_together_are_scored_alike(build: Any) -> None:
    loop, together = build(0.7), build(0.7, chunk=4)
    together.load_state_dict(loop.state_dict())
    one, other = (each.eval().evaluate(batch()) for each in (loop, together))
    assert {"fake_on_real", "fake_on_made", "accuracy", "loss"} <= one.keys()
    assert all(torch.allclose(one[name], other[name], rtol=1e-9) for name in one)


@pytest.mark.parametrize("build", [on_protonet, on_maml])
def test_images_are_made_for_a_task_in_its_own_units_and_drawn(build: Any) -> None:
    learner, tasks = build(0.7).eval(), batch(2)
    made = [learner.make(learner.theta(), x) for x in tasks.support.x]
    assert made[0].shape == (4, 1, 28, 28)
    assert not torch.equal(*made)
    pixels = made[0] * LOOK[1][0] + LOOK[0][0]
    assert 0 < pixels.min() < pixels.max() < 1
    picture = learner.draw(tasks)["generated"]
    assert picture.size == ((5 + 4) * 60 + 12, 2 * 60 + 4)


def test_the_two_optimizers_share_all_parameters_and_the_generator_improves_against_a_fixed_classifier() -> None:
    learner = on_protonet(0.7).train()
    asked: dict[str, list[Tensor]] = {}

    def optim(parameters: Any, name: str = "outer") -> torch.optim.Optimizer:
        asked[name] = list(parameters)
        return torch.optim.Adam(asked[name], 0.0 if name == "outer" else 0.01)

    optims = learner.build_optims(optim)
    assert set(asked) == {"outer", "generator"}
    assert (
        sum(map(len, asked.values())) == len(set(asked["outer"] + asked["generator"])) == len([*learner.parameters()])
    )
    torch.manual_seed(0)
    losses = [learner.meta_step(batch(), optims)["generator_loss"].item() for _ in range(12)]
    assert losses[-1] < losses[0] - 0.01
    scores = learner.eval().evaluate(Batch(*batch(2)[:2], 3))
    assert ((scores["fake_on_made"] > 0) & (scores["fake_on_made"] < 1)).all()
