"""Meta Networks without fast weights, and with one image's; modulated channels; in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_gradients import batch, conv4, furthest, meta_gradient
from torch import Tensor, nn

from metarun.algos.base.metric import embed_together
from metarun.algos.memory.metanet import MetaNet, TaskWriter
from metarun.algos.metric.hypernet import HyperNet
from metarun.algos.optimizer.coordinates import preprocess
from metarun.backbones.mlp import MLP
from metarun.backbones.vit import ViT
from metarun.core.tasks import Batch, Examples
from metarun.ops.functional import call, within

pytestmark = pytest.mark.usefixtures("doubles")


def metanet(chunk: int = 1, **changed: Any) -> MetaNet:
    own = {"hidden": 5, "units": 4, "chunks": 2, "range": 7.0, "temperature": 0.3, "comparing": 0.5}
    torch.manual_seed(2)
    return MetaNet(conv4(), 3, **own | changed, engine="vectorized", task_chunk=chunk)


def silence(learner: MetaNet) -> MetaNet:
    """Both writers write zeros."""
    for layer in (learner.task_writer.head, learner.image_writer[-1]):
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
    return learner


def answer(learner: MetaNet, tasks: Batch, task: int = 0) -> Tensor:
    params, support = learner.theta(), Examples(tasks.support.x[task], tasks.support.y[task])
    return learner.predict(params, learner.adapt(params, support, 3), tasks.query.x[task])


def test_without_fast_weights_the_slow_network_answers() -> None:
    learner, tasks = silence(metanet()).eval(), batch(1)
    features = learner.backbone(torch.cat([tasks.support.x[0], tasks.query.x[0]]))[6:]
    classify = learner.classify
    expected = classify["head"](torch.relu(classify["first"](features)))
    assert torch.allclose(answer(learner, tasks), expected, atol=1e-12)


def test_fast_weights_are_those_of_the_nearest_image_at_temperature_zero() -> None:
    """With one support image's copy as the query, its gradient, by plain autograd, through the small network."""
    learner, tasks = metanet(temperature=1e-7).eval(), batch(1)
    tasks = Batch(tasks.support, Examples(tasks.support.x[:, [4, 2]], tasks.support.y[:, [4, 2]]), 3)
    params = learner.theta()
    known, asked = embed_together(learner.backbone, within(params, "backbone"), tasks.support.x[0], tasks.query.x[0])
    names = ["first.weight", "first.bias", "head.weight", "head.bias"]
    slow = {name: learner.classify.get_parameter(name) for name in names}
    for row, image in enumerate([4, 2]):
        logits = F.linear(
            torch.relu(F.linear(known[image], slow[names[0]], slow[names[1]])), slow[names[2]], slow[names[3]]
        )
        loss = F.cross_entropy(logits[None], tasks.support.y[0, image : image + 1])
        grads = torch.autograd.grad(loss, list(slow.values()), retain_graph=True)
        fast = [learner.image_writer(preprocess(grad.flatten(), 7.0))[:, 0].reshape(grad.shape) for grad in grads]
        hidden = torch.relu(F.linear(asked[row], slow[names[0]], slow[names[1]]))
        hidden = hidden + F.leaky_relu(F.linear(asked[row], fast[0], fast[1]))
        expected = F.linear(hidden, slow[names[2]] + fast[2], slow[names[3]] + fast[3])
        assert torch.allclose(answer(learner, tasks)[row], expected, atol=1e-9)


def test_the_tasks_fast_weights_come_from_chunks_of_gradients() -> None:
    """Every second image: the gradients of their mean loss by plain autograd, read by torch's own cell."""
    learner, tasks = metanet().eval(), batch(1)
    params = learner.theta()
    known, _ = embed_together(learner.backbone, within(params, "backbone"), tasks.support.x[0], tasks.query.x[0])
    known, y = known.detach(), tasks.support.y[0]
    first = learner.compare["first"]
    told = []
    for number in range(2):
        keys = torch.relu(first(known))
        means = torch.stack([keys[y == label].mean(0) for label in range(3)])
        logits = F.cosine_similarity(keys[:, None], means, dim=-1) / 0.3
        loss = F.cross_entropy(logits[number::2], y[number::2])
        told.append(torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, [first.weight, first.bias])]))
    writer = learner.task_writer
    cell = nn.LSTMCell(2, 4)
    with torch.no_grad():
        cell.weight_ih.copy_(writer.cell.gates.weight[:, :2])
        cell.weight_hh.copy_(writer.cell.gates.weight[:, 2:])
        cell.bias_ih.copy_(writer.cell.gates.bias)
        cell.bias_hh.zero_()
    state = None
    for grads in told:
        state = cell(preprocess(grads, 7.0), state)
    expected = writer.head(state[0])[:, 0]
    classes = F.one_hot(y, 3).double()
    found = learner.write_for_task(params, within(params, "compare"), known, classes)
    assert torch.allclose(torch.cat([value.flatten() for value in found.values()]), expected, atol=1e-10)


def test_a_loop_over_tasks_and_vmap_learn_the_same_fast_weights() -> None:
    loop, together = metanet(1), metanet(4)
    together.load_state_dict(loop.state_dict())
    found, expected = meta_gradient(together, batch()), meta_gradient(loop, batch())
    assert furthest(found, expected) < 1e-9
    assert all(value.abs().sum() > 0 for value in expected.values())


def test_a_writer_has_a_memory_for_each_weight() -> None:
    torch.manual_seed(0)
    writer, told = TaskWriter(3), torch.randn(2, 5, 2)
    changed = told.clone()
    changed[:, 1] += 1
    same = writer(told) == writer(changed)
    assert same.tolist() == [True, False, True, True, True]


def modulated(chunk: int = 1, film: bool = True) -> HyperNet:
    torch.manual_seed(2)
    return HyperNet(conv4(), 8, 2, "vectorized", chunk, film)


def test_a_modulator_of_zeros_changes_nothing() -> None:
    learner, bare = modulated(), modulated(film=False)
    nn.init.zeros_(learner.modulator[-1].weight)
    bare.load_state_dict({n: value for n, value in learner.state_dict().items() if not n.startswith("modulator")})
    found, expected = meta_gradient(learner, batch()), meta_gradient(bare, batch())
    assert furthest({name: found[name] for name in expected}, expected) < 1e-12


def test_channels_are_scaled_and_shifted_by_what_the_support_set_says() -> None:
    """An MLP of two layers by hand."""
    torch.manual_seed(0)
    learner = HyperNet(MLP((3,), "none", (4, 5)), 6, 2, "vectorized", 1, True)
    for parameter in learner.modulator.parameters():
        nn.init.normal_(parameter)
    support, query = Examples(torch.randn(6, 3), torch.arange(6) % 3), torch.randn(4, 3)
    params = learner.theta()
    found = learner.predict(params, learner.adapt(params, support, 3), query)
    one, two = learner.backbone.layers[0], learner.backbone.layers[3]
    mean = torch.relu(two(torch.relu(one(support.x)))).mean(0)
    films = learner.modulator(mean).split([8, 10])

    def embed(x: Tensor) -> Tensor:
        for layer, film in zip((one, two), films, strict=True):
            shift, factor = film.reshape(2, -1)
            x = torch.relu((1 + factor) * layer(x) + shift)
        return x

    known, asked = embed(support.x), embed(query)
    expected = learner.compare(params, known, F.one_hot(support.y, 3).double(), asked)
    assert torch.allclose(found, expected, atol=1e-10)
    assert call(learner.backbone, within(params, "backbone"), query).shape == (4, 5)  # and leaves no hook behind
    assert torch.equal(learner.backbone(query), torch.relu(two(torch.relu(one(query)))))


def test_modulated_loops_and_vmap_agree_and_classes_may_be_turned() -> None:
    loop, together = modulated(1), modulated(4)
    together.load_state_dict(loop.state_dict())
    assert furthest(meta_gradient(together, batch()), meta_gradient(loop, batch())) < 1e-9
    tasks, params = batch(1), loop.theta()
    support = Examples(tasks.support.x[0], tasks.support.y[0])
    turned = Examples(support.x, (support.y + 1) % 3)
    one, other = (loop.predict(params, loop.adapt(params, each, 3), tasks.query.x[0]) for each in (support, turned))
    assert torch.allclose(other[:, [1, 2, 0]], one, atol=1e-10)


def test_a_modulated_image_is_not_encoded_by_itself_and_a_network_without_relu_is_refused() -> None:
    assert HyperNet(conv4("running"), 8, 2, "auto", 1).eval().input_encoder() is not None
    assert HyperNet(conv4("running"), 8, 2, "auto", 1, True).eval().input_encoder() is None
    with pytest.raises(ValueError, match=r"algo=hypernet algo.film=true needs a backbone with a ReLU to modulate"):
        HyperNet(ViT((1, 28, 28), 8, 1, 2, 14), 8, 2, "auto", 1, True)
