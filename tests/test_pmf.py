"""P>M>F: what it is without a step, what a step descends, and the copies that it learns from."""

from __future__ import annotations

import numpy as np
import torch
from conftest import noise_tasks
from test_gradients import conv4
from torch.nn.functional import cross_entropy, normalize

from metarun.algos.metric.protonet import ProtoNet
from metarun.algos.transfer.pmf import PMF, change_images
from metarun.core.tasks import EpisodeShape, Examples

SHAPE = EpisodeShape(4, 2, 3)


def pmf(lr: float, steps: int, augment: float = 1.0, scale: float = 5.0) -> PMF:
    torch.manual_seed(0)
    return PMF(conv4("none"), scale, lr, steps, augment, "auto", 1)


def test_without_a_step_it_is_protonet_with_cosines(doubles: None) -> None:
    batch = noise_tasks(SHAPE, SHAPE).batch("test", np.arange(3))
    torch.manual_seed(0)
    proto = ProtoNet(conv4("none"), "cosine", 0.2, "auto", 1).eval().evaluate(batch)
    for learner in (pmf(0.0, 5), pmf(0.1, 0)):
        found = learner.eval().evaluate(batch)
        assert torch.allclose(found["loss"], proto["loss"], rtol=1e-9)
    tuned = pmf(0.1, 2).eval().evaluate(batch)
    assert not torch.allclose(tuned["loss"], proto["loss"], rtol=1e-3)
    assert torch.allclose(pmf(0.1, 2).train().evaluate(batch)["loss"], proto["loss"], rtol=1e-9)  # training has no fit


def test_a_step_descends_the_loss_of_the_copies_by_the_means_of_the_images(doubles: None) -> None:
    """One step of plain autograd, written out, on the same copies."""
    batch = noise_tasks(SHAPE, SHAPE).batch("test", np.arange(1))
    x, y, query = batch.support.x[0], batch.support.y[0], batch.query.x[0]
    learner = pmf(0.05, 1).eval()
    found = learner.adapt_to(Examples(x, y), 4)(query)
    net = pmf(0.05, 1).backbone
    means = torch.stack([net(x)[y == label].mean(0) for label in range(4)])
    copies = net(change_images(x, 0, 1.0))
    cross_entropy(5 * normalize(copies, dim=-1) @ normalize(means, dim=-1).T, y).backward()
    with torch.no_grad():
        for weight in net.parameters():
            weight -= 0.05 * weight.grad
        means = torch.stack([net(x)[y == label].mean(0) for label in range(4)])
        expected = 5 * normalize(net(query), dim=-1) @ normalize(means, dim=-1).T
    assert torch.allclose(found, expected, atol=1e-9)


def test_copies_differ_by_image_and_step_and_are_the_same_each_time() -> None:
    x = torch.rand(1, 1, 16, 16).expand(6, 1, 16, 16)
    one, again, other = change_images(x, 0, 1.0), change_images(x, 0, 1.0), change_images(x, 1, 1.0)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])
    assert torch.equal(change_images(x, 0, 0.0), x)
    moved = torch.zeros(40, 1, 16, 16)
    moved[:, :, 8, 8] = 1
    place = change_images(moved, 3, 1.0).flatten(1).argmax(1)
    assert {int(p) // 16 for p in place} == {6, 7, 8, 9, 10}  # two pixels at most
    assert {int(p) % 16 for p in place} >= {6, 7, 8, 9, 10}  # and 7 less than that where it was mirrored
    assert len(set(place.tolist())) > 12  # along either axis by a number of its own
