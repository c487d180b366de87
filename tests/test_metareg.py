"""MetaReg in float64 beside its equations written out, and moons at several angles as domains."""

from __future__ import annotations

import math
from itertools import islice

import pytest
import torch
from scipy import stats
from test_domains import PLAN
from torch import Tensor
from torch.nn.functional import cross_entropy

from metarun.algos.transfer.metareg import MetaReg
from metarun.backbones.mlp import MLP
from metarun.core.batches import merge_sides
from metarun.core.tasks import EpisodePlan, EpisodeShape, Examples
from metarun.data.moons import MIDDLE
from metarun.data.turned_moons import TurnedMoons
from metarun.run.evaluation import evaluate
from metarun.run.interrupt import StopRequest

pytestmark = pytest.mark.usefixtures("doubles")

ANGLES = [0.0, 15.0, -30.0, 90.0]
STEPS, LR, WEIGHT = 3, 0.7, 1.3


def moons(plan: EpisodePlan = PLAN, **changed: object) -> TurnedMoons:
    own = {"points": 24, "noise": 0.1, "angles": ANGLES} | changed
    return TurnedMoons(plan, torch.device("cpu"), **own)  # type: ignore[arg-type]


def metareg(**changed: object) -> MetaReg:
    torch.manual_seed(3)
    own = {
        "steps": 10, "regularising": 0.4, "domains": 3, "weight": WEIGHT, "inner_lr": LR, "inner_steps": STEPS,
        "engine": "auto", "task_chunk": 0,
    } | changed  # fmt: skip
    learner = MetaReg(MLP((2,), "none", [6, 5]), 2, **own)  # type: ignore[arg-type]
    with torch.no_grad():
        for value in learner.phi.values():
            value.normal_()
    return learner


def plain_transfer(learner: MetaReg, phi: dict[str, Tensor], features: Tensor, y: Tensor) -> Tensor:
    """Head by head and domain by domain."""
    losses = []
    for a in range(3):
        w = learner.heads.weight.detach()[2 * a : 2 * a + 2].clone().requires_grad_()
        b = learner.heads.bias.detach()[2 * a : 2 * a + 2].clone().requires_grad_()
        for _ in range(STEPS):
            loss = cross_entropy(features[a] @ w.T + b, y[a])
            loss = loss + (phi["weight"] * w.abs()).sum() + (phi["bias"] * b.abs()).sum()
            grads = torch.autograd.grad(loss, (w, b), create_graph=True)
            w, b = w - LR * grads[0], b - LR * grads[1]
        losses += [cross_entropy(features[other] @ w.T + b, y[other]) for other in range(3) if other != a]
    return torch.stack(losses).mean()


def test_the_penalty_learns_what_the_equations_say_and_nothing_else_learns_from_it() -> None:
    learner, batch = metareg(), next(moons().episodes("train", 0, 3))
    x, y = merge_sides(batch).query
    features = learner.backbone(x.flatten(0, 1)).view(3, -1, 5)
    phi = {name: value.detach().clone().requires_grad_() for name, value in learner.phi.items()}
    wanted = torch.autograd.grad(plain_transfer(learner, phi, features.detach(), y), list(phi.values()))

    heads = [(learner.heads.weight[2 * d : 2 * d + 2], learner.heads.bias[2 * d : 2 * d + 2]) for d in range(3)]
    plain = sum(cross_entropy(features[d] @ w.T + b, y[d]) for d, (w, b) in enumerate(heads)) / 3
    rest = [*learner.backbone.parameters(), *learner.heads.parameters()]
    of_rest = torch.autograd.grad(plain, rest)

    stage = learner.stages()[0]
    assert stage.gradient
    metrics = stage.gradient(batch)
    for (name, value), gradient in zip(learner.phi.items(), wanted, strict=True):
        assert torch.allclose(value.grad, gradient, atol=1e-12), name
    for value, gradient in zip(rest, of_rest, strict=True):
        assert torch.allclose(value.grad, gradient, atol=1e-12)
    assert learner.head.weight.grad is None
    assert metrics["loss"].item() == pytest.approx(plain.item(), abs=1e-12)
    transfer = plain_transfer(learner, phi, features.detach(), y).item()
    assert metrics["transfer_loss"].item() == pytest.approx(transfer, abs=1e-12)


def test_tasks_of_one_domain_are_not_the_others_of_each_other() -> None:
    """Tasks 0 and 3 are of domain 0: from one's head to the other's points is no transfer."""
    learner, batch = metareg(), next(moons().episodes("train", 0, 4))
    x, y = merge_sides(batch).query
    features = learner.backbone(x.flatten(0, 1)).view(4, -1, 5).detach()
    heads = [value.detach() for value in learner._take_heads(batch)]
    found = learner.transfer(features, y, *heads, batch.side["domain"])
    alone = learner.transfer(features[[0, 3]], y[[0, 3]], *(head[[0, 3]] for head in heads), torch.tensor([0, 0]))
    assert (found > 0, alone.item()) == (True, 0.0)


@pytest.mark.parametrize("weight", [0.0, WEIGHT])
def test_the_second_stage_is_plain_training_of_a_new_head_with_a_weighted_l1_penalty(weight: float) -> None:
    learner, batch = metareg(weight=weight), next(moons().episodes("train", 0, 3))
    x, y = merge_sides(batch).query
    plain = cross_entropy(learner.head(learner.backbone(x.flatten(0, 1))), y.flatten())
    wanted = torch.autograd.grad(plain, list(learner.head.parameters()))
    loss, metrics = learner.stages()[1].loss(batch)
    loss.backward()
    for (name, value), gradient in zip(learner.head.named_parameters(), wanted, strict=True):
        assert torch.allclose(value.grad, gradient + weight * learner.phi[name] * value.sign(), atol=1e-12), name
    assert all(value.grad is None for value in [*learner.phi.values(), *learner.heads.parameters()])
    assert metrics["loss"].item() == pytest.approx(plain.item(), abs=1e-12)


def test_its_stages_share_the_steps_and_tests_use_the_new_head_alone() -> None:
    learner, source = metareg(), moons()
    batches = list(islice(learner.train_stream(source, 0, 3), 10))
    assert [batch.stage for batch in batches] == [0] * 4 + [1] * 6
    batch = next(source.episodes("test", 0, 1))
    x, y = batch.support.x[0], batch.support.y[0]
    wanted = learner.eval().head(learner.backbone(batch.query.x[0]))
    for labels in (y, 1 - y):
        assert torch.allclose(learner.adapt_to(Examples(x, labels), 2)(batch.query.x[0]), wanted, atol=1e-12)


def test_a_share_of_the_steps_is_no_more_than_1() -> None:
    with pytest.raises(ValueError, match=r"algo\.regularising=1\.5 is not in 0\.\.1"):
        metareg(regularising=1.5)


def turn_back(x: Tensor, angle: float) -> Tensor:
    turn = math.radians(-angle)
    matrix = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    return (x - torch.tensor(MIDDLE)) @ matrix.T + torch.tensor(MIDDLE)


def off_the_moons(x: Tensor, y: Tensor) -> float:
    """The largest distance of a point from the half circle of its label."""
    middle = torch.stack([y, 0.5 * y], -1)
    side = torch.where(y == 1, -1.0, 1.0)
    apart = (x - middle).norm(dim=-1) - 1
    below = (-side * (x - middle)[..., 1]).clamp_min(0)
    return float(torch.maximum(apart.abs(), below).max())


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_task_is_a_domain_and_tests_ask_about_the_one_left_out(split: str) -> None:
    source = moons(noise=0.0)
    batch = next(source.episodes(split, 4, 6))
    assert batch.side["domain"].tolist() == [1, 2, 0, 1, 2, 0]
    for number, domain in enumerate([1, 2, 0, 1, 2, 0]):
        asked = 3 if split == "test" else domain
        for (x, y), of in ((batch.support, domain), (batch.query, asked)):
            assert off_the_moons(turn_back(x[number], ANGLES[of]), y[number].double()) < 1e-9
            wrong = [k for k in range(4) if k != of]
            assert min(off_the_moons(turn_back(x[number], ANGLES[k]), y[number].double()) for k in wrong) > 0.05
    shots, asked = (3, 4) if split == "train" else (5, 6)
    assert (batch.support.x.shape, batch.query.x.shape) == ((6, 2 * shots, 2), (6, 2 * asked, 2))
    same = next(source.episodes(split, 6, 1))
    assert torch.equal(same.query.x[0], batch.query.x[2])


def test_training_has_so_many_points_of_each_domain_and_shows_all_before_any_comes_again() -> None:
    """12 points on each moon; a task takes 7: twelve tasks of a domain show each of them seven times."""
    source, seen = moons(), {0: [], 1: [], 2: []}
    x, y = merge_sides(next(source.episodes("train", 0, 36))).query
    for number in range(36):
        seen[number % 3] += [tuple(point) for point, label in zip(x[number].tolist(), y[number].tolist(), strict=True)]
    for points in seen.values():
        assert (len(set(points)), len(points)) == (24, 168)
        assert len(set(points[:24])) == 24 or len(set(points[:14])) == 14
        assert {points.count(point) for point in set(points)} == {7}
    assert len({point for points in seen.values() for point in points}) == 72


@pytest.mark.parametrize("angles", [[0, 90], [0, 30, 360], [10, 10, 20]])
def test_angles_that_are_no_three_domains_are_refused(angles: list[float]) -> None:
    with pytest.raises(ValueError, match=r"data\.angles=.* are not three or more different angles"):
        moons(angles=angles)


@pytest.mark.slow
def test_it_learns_to_tell_the_moons_of_an_angle_never_seen() -> None:
    plan = EpisodePlan(EpisodeShape(0, 10, 20), EpisodeShape(0, 10, 50), 0, 0)
    source = moons(plan, points=100, angles=[0.0, 10.0, 20.0, 30.0, 45.0])
    learner = metareg(steps=600, domains=4, inner_lr=0.1, weight=1.0)
    optims = learner.build_optims(lambda parameters: torch.optim.Adam(parameters, 0.01))

    def tested() -> object:
        return evaluate(learner, source, "test", 40, 20, StopRequest())["accuracy"]

    before, stream = tested(), learner.train().train_stream(source, 0, 4)
    for _ in range(600):
        learner.meta_step(next(stream), optims)
    assert stats.ttest_rel(tested(), before, alternative="greater").pvalue < 1e-4
