"""Reference tests: each engine's meta-gradient in float64 against a plain loop that writes every layer out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import inner_settings, maml_settings, noise_tasks, quick_if
from torch import Tensor

from metarun.algos.base.learner import Learner
from metarun.algos.gradient.anil import ANIL
from metarun.algos.gradient.maml import MAML
from metarun.algos.gradient.reptile import Reptile
from metarun.algos.metric.protonet import ProtoNet
from metarun.backbones.conv4 import Conv4
from metarun.backbones.mlp import MLP
from metarun.core.objectives import classification, regression
from metarun.core.tasks import Batch, EpisodePlan, EpisodeShape, Examples
from metarun.data.sinusoid import Sinusoid

pytestmark = pytest.mark.usefixtures("doubles")

ENGINES = {
    "loop": ("vectorized", 1),
    "vmap": ("vectorized", 4),
    "vmap in chunks": ("vectorized", 2),
    "learn2learn": ("learn2learn", 0),
}
INNER_LR = 0.3


def batch(n_tasks: int = 4, k_shot: int = 2) -> Batch:
    return noise_tasks(EpisodeShape(3, k_shot, 2), EpisodeShape(3, k_shot, 2)).batch("train", np.arange(n_tasks))


def conv4(bn: str = "transductive", downsample: str = "stride") -> Conv4:
    torch.manual_seed(1)
    return Conv4((1, 28, 28), bn, hidden=6, downsample=downsample)


def maml(engine: str, steps: int = 2, first_order: bool = False, cls: type[MAML] = MAML, **conv: str) -> MAML:
    backbone = conv4(**conv)
    settings = maml_settings(INNER_LR, steps, *ENGINES[engine], first_order=first_order)
    return cls(backbone, 3, classification, **settings)


def plain_conv4(p: dict[str, Tensor], x: Tensor, downsample: str) -> Tensor:
    """Conv-4 and head from textbook operations, without any module of ours."""
    place = 4 if downsample == "pool" else 3  # modules of a block
    for layer in range(4):
        i = layer * place
        x = F.conv2d(x, p[f"net.backbone.blocks.{i}.weight"], stride=1 if downsample == "pool" else 2, padding=1)
        mean = x.mean((0, 2, 3), keepdim=True)
        var = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
        weight, bias = (p[f"net.backbone.blocks.{i + 1}.{k}"][None, :, None, None] for k in ("weight", "bias"))
        x = torch.relu((x - mean) / (var + 1e-5).sqrt() * weight + bias)
        x = F.max_pool2d(x, 2) if downsample == "pool" else x
    x = x.flatten(1) if downsample == "pool" else x.mean((2, 3))
    return x @ p["net.head.weight"].T + p["net.head.bias"]


def plain_maml_gradient(
    learner: MAML, tasks: Batch, steps: int, first_order: bool, downsample: str, head_only: bool = False
):
    theta = {name: value.detach().clone().requires_grad_() for name, value in learner.named_parameters()}
    losses = []
    for i in range(tasks.n_tasks):
        phi = dict(theta)
        for _ in range(steps):
            loss = F.cross_entropy(plain_conv4(phi, tasks.support.x[i], downsample), tasks.support.y[i])
            adapted = [n for n in phi if not head_only or "head" in n]
            grads = torch.autograd.grad(loss, [phi[n] for n in adapted], create_graph=True)
            for n, g in zip(adapted, grads, strict=True):
                phi[n] = phi[n] - INNER_LR * (g.detach() if first_order else g)
        losses.append(F.cross_entropy(plain_conv4(phi, tasks.query.x[i], downsample), tasks.query.y[i]))
    return dict(zip(theta, torch.autograd.grad(torch.stack(losses).mean(), list(theta.values())), strict=True))


def meta_gradient(learner: Learner, tasks: Batch) -> dict[str, Tensor]:
    learner.train().zero_grad()
    learner.meta_gradient(tasks)
    return {name: value.grad for name, value in learner.named_parameters()}


def furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest relative error over parameters."""
    assert one.keys() == other.keys()
    return max(float((one[n] - other[n]).norm() / other[n].norm().clamp(min=1e-12)) for n in one)


@pytest.mark.parametrize("downsample", ["stride", "pool"])
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("engine", quick_if(("vmap", "learn2learn"), ENGINES))
def test_maml_meta_gradient_is_that_of_a_plain_loop(engine: str, first_order: bool, downsample: str) -> None:
    learner, tasks = maml(engine, 2, first_order, downsample=downsample), batch()
    expected = plain_maml_gradient(learner, tasks, 2, first_order, downsample)
    assert furthest(meta_gradient(learner, tasks), expected) < 1e-9


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize("first_order", [False, True])
def test_a_replayed_meta_gradient_is_that_of_a_plain_loop(first_order: bool, engine: str) -> None:
    """Of other tasks than were recorded."""
    learner, tasks, others = maml(engine, 2, first_order), batch(), batch(8)
    learner.record("replay")
    meta_gradient(learner, Batch(*(Examples(s.x[4:], s.y[4:]) for s in (others.support, others.query)), 3))
    expected = plain_maml_gradient(learner, tasks, 2, first_order, "stride")
    assert furthest(meta_gradient(learner, tasks), expected) < 1e-9


@pytest.mark.parametrize("engine", quick_if(("vmap", "learn2learn"), ENGINES))
def test_anil_meta_gradient_is_that_of_a_plain_loop(engine: str) -> None:
    learner, tasks = maml(engine, 3, cls=ANIL), batch()
    expected = plain_maml_gradient(learner, tasks, 3, False, "stride", head_only=True)
    assert furthest(meta_gradient(learner, tasks), expected) < 1e-9


@pytest.mark.parametrize("bn", ["support", "running"])
@pytest.mark.parametrize("engine", ["vmap", "learn2learn"])
def test_engines_agree_for_every_batch_norm_mode_in_training_and_test(engine: str, bn: str) -> None:
    learner, reference, tasks = maml(engine, bn=bn), maml("loop", bn=bn), batch()
    assert furthest(meta_gradient(learner, tasks), meta_gradient(reference, tasks)) < 1e-9
    if bn == "running":
        assert furthest(dict(learner.named_buffers()), dict(reference.named_buffers())) < 1e-9
    scores, expected = (one.eval().evaluate(tasks) for one in (learner, reference))
    assert furthest(scores, expected) < 1e-9


def test_second_order_differs_from_first_order() -> None:
    """Guards the tests above against comparing nothing with nothing."""
    tasks = batch()
    assert furthest(meta_gradient(maml("vmap"), tasks), meta_gradient(maml("vmap", first_order=True), tasks)) > 1e-2


def test_torch_batch_norm_is_still_wrong_under_vmapped_second_order() -> None:
    """Why metarun/ops/norm.py takes `standardise` under vmap. When this fails, torch has been mended."""
    learner, tasks = maml("vmap", 1), batch()
    expected = plain_maml_gradient(learner, tasks, 1, False, "stride")
    native = lambda x, w, b, eps: F.batch_norm(x, None, None, w, b, True, eps=eps)  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metarun.ops.norm.standardise", native)
        assert furthest(meta_gradient(learner, tasks), expected) > 1e-4


def test_maml_on_the_fully_connected_net_agrees_between_engines() -> None:
    grads = []
    for engine in ("loop", "vmap", "learn2learn"):
        torch.manual_seed(0)
        mlp = MLP((1, 28, 28), "transductive", (16, 8))
        learner = MAML(mlp, 3, classification, **maml_settings(INNER_LR, 2, *ENGINES[engine]))
        grads.append(meta_gradient(learner, batch()))
    assert max(furthest(grads[0], other) for other in grads[1:]) < 1e-9


def waves(n_tasks: int = 4) -> Batch:
    plan = EpisodePlan(EpisodeShape(0, 5, 7), EpisodeShape(0, 5, 7), 0, 0)
    source = Sinusoid(plan, torch.device("cpu"), [0.1, 5.0], [0.0, 3.0], [-5.0, 5.0])
    return source.batch("train", np.arange(n_tasks))


def on_waves(cls: type[MAML], engine: str, steps: int, report_steps: tuple[int, ...] = ()) -> MAML:
    torch.manual_seed(1)
    settings = maml_settings(0.01, steps, *ENGINES[engine], report_steps=report_steps)
    return cls(MLP((1,), "none", (6, 5)), 1, regression, **settings)


@pytest.mark.parametrize("engine", quick_if(("vmap", "learn2learn"), ENGINES))
@pytest.mark.parametrize(("cls", "adapted"), [(MAML, "net"), (ANIL, "net.head")])
def test_the_meta_gradient_on_functions_is_that_of_a_plain_loop(cls: type[MAML], adapted: str, engine: str) -> None:
    """Two layers of ReLU and a linear head, squared errors, two inner steps."""
    learner, tasks = on_waves(cls, engine, 2), waves()
    theta = {name: value.detach().clone().requires_grad_() for name, value in learner.named_parameters()}

    def error(p: dict[str, Tensor], side: Examples, i: int) -> Tensor:
        hidden = side.x[i]
        for layer in ("net.backbone.layers.0", "net.backbone.layers.3"):
            hidden = torch.relu(hidden @ p[f"{layer}.weight"].T + p[f"{layer}.bias"])
        return ((hidden @ p["net.head.weight"].T + p["net.head.bias"] - side.y[i]) ** 2).mean()

    losses = []
    for i in range(tasks.n_tasks):
        phi = dict(theta)
        for _ in range(2):
            names = [name for name in phi if name.startswith(adapted)]
            grads = torch.autograd.grad(error(phi, tasks.support, i), [phi[n] for n in names], create_graph=True)
            phi |= {n: phi[n] - 0.01 * g for n, g in zip(names, grads, strict=True)}
        losses.append(error(phi, tasks.query, i))
    grads = torch.autograd.grad(torch.stack(losses).mean(), list(theta.values()))
    assert furthest(meta_gradient(learner, tasks), dict(zip(theta, grads, strict=True))) < 1e-9


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize("cls", [MAML, ANIL])
def test_scores_along_the_inner_loop_are_those_of_learners_that_stop_there(cls: type[MAML], engine: str) -> None:
    tasks = waves()
    found = on_waves(cls, engine, 2, (0, 1, 2, 5)).eval().evaluate(tasks)
    assert list(found) == ["loss", "mse", "mse@0", "mse@1", "mse@2", "mse@5"]
    assert torch.equal(found["mse"], found["mse@2"])
    for steps in (0, 1, 5):
        assert torch.allclose(found[f"mse@{steps}"], on_waves(cls, engine, steps).eval().evaluate(tasks)["mse"])
    assert found["mse@0"].mean() > found["mse@5"].mean()


@pytest.mark.parametrize("bn", ["transductive", "support", "running"])
@pytest.mark.parametrize("distance", ["euclidean", "mean_squared", "cosine"])
@pytest.mark.parametrize("chunk", [1, 4])
def test_protonet_agrees_with_learn2learns_prototypical_classifier(distance: str, chunk: int, bn: str) -> None:
    tasks = batch()
    ours = ProtoNet(conv4(bn), distance, 0.5, "vectorized", chunk)
    theirs = ProtoNet(conv4(bn), distance, 0.5, "learn2learn", 0)
    allowed = 1e-6 if distance == "cosine" else 1e-9  # learn2learn adds 1e-8 to norms
    assert furthest(meta_gradient(ours, tasks), meta_gradient(theirs, tasks)) < allowed
    assert furthest(ours.eval().evaluate(tasks), theirs.eval().evaluate(tasks)) < allowed


def test_protonet_logits_are_minus_squared_distances_to_class_means() -> None:
    """Two classes in the plane. Support 0: (0,0), (2,0) -> prototype (1,0). Support 1: (0,4), (0,4) -> (0,4).
    Query (1,1): squared distances 1 and 1 + 9 = 10; half of them as means over two dimensions."""
    support = Examples(torch.tensor([[0.0, 0], [2, 0], [0, 4], [0, 4]]), torch.tensor([0, 0, 1, 1]))
    for distance, expected in (("euclidean", [-1.0, -10.0]), ("mean_squared", [-0.5, -5.0])):
        learner = ProtoNet(torch.nn.Identity(), distance, 0.3, "vectorized", 1)
        logits = learner.predict({}, learner.adapt({}, support, 2), torch.tensor([[1.0, 1.0]]))
        assert torch.allclose(logits, torch.tensor([expected]))


def reptile(steps: int, size: int, task_chunk: int = 1, **more: int) -> Reptile:
    sizes = {"inner_batch_size": size, "test_inner_batch_size": size, "inner_beta2": 0.9}
    settings = inner_settings(0.01, steps, "vectorized", task_chunk, **sizes)
    return Reptile(conv4(), 3, classification, **settings | more)


def test_reptile_gradient_is_theta_minus_phi() -> None:
    """One inner step of Adam without first moment moves each weight by inner_lr against the gradient's sign
    (g / (sqrt(g^2) + 1e-8)), so theta - phi is inner_lr * mean over tasks of the gradient's signs."""
    tasks = batch(k_shot=2)
    torch.manual_seed(1)
    learner = reptile(1, 99, task_chunk=4)
    signs = []
    for i in range(tasks.n_tasks):
        loss = F.cross_entropy(learner.net(tasks.support.x[i]), tasks.support.y[i])
        signs.append([g / (g.abs() + 1e-8) for g in torch.autograd.grad(loss, list(learner.parameters()))])
    expected = [0.01 * torch.stack(task_signs).mean(0) for task_signs in zip(*signs, strict=True)]
    for got, want in zip(meta_gradient(learner, tasks).values(), expected, strict=True):
        assert torch.allclose(got, want, atol=1e-9)


@pytest.mark.parametrize(
    ("size", "rows"), [(3, [[0, 2, 4], [1, 3, 5]]), (4, [[0, 2, 4, 1], [3, 5, 0, 2], [4, 1, 3, 5]])]
)
def test_reptiles_minibatches_take_the_classes_in_turn_and_each_image_before_any_again(
    size: int, rows: list[list[int]]
) -> None:
    """Of a support set that lies class by class: 0, 0, 1, 1, 2, 2."""
    learner = reptile(len(rows), size, test_inner_steps=9, test_inner_batch_size=9).train()
    learner.objective = lambda output, y: labels.append(y) or classification(output, y)
    learner.net.register_forward_pre_hook(lambda _, inputs: images.append(inputs[0]))
    labels, images, support = [], [], Examples(*(side[0] for side in batch(1).support))
    assert support.y.tolist() == [0, 0, 1, 1, 2, 2]
    learner.adapt(dict(learner.named_parameters()), support, 3)
    assert len(labels) == len(images) == len(rows)
    for x, y, expected in zip(images, labels, rows, strict=True):
        assert torch.equal(y, support.y[expected])
        assert torch.equal(x, support.x[expected])


def test_reptile_sgd_step_with_rate_one_lands_on_the_mean_adapted_weights() -> None:
    tasks = batch(n_tasks=1)
    torch.manual_seed(1)
    learner = reptile(3, 4).train()
    state = learner.adapt(dict(learner.named_parameters()), Examples(tasks.support.x[0], tasks.support.y[0]), 3)
    learner.meta_step(tasks, {"outer": torch.optim.SGD(learner.parameters(), lr=1.0)})
    assert all(torch.allclose(value, state.phi[n.removeprefix("net.")]) for n, value in learner.named_parameters())
