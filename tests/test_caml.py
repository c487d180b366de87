"""CAML: codes as far apart as can be, the same answers in any order, and a network that never changes."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from conftest import noise_tasks
from test_gradients import conv4
from torch import nn

from metarun.algos.memory.caml import CAML, make_codes
from metarun.algos.memory.incontext import Block
from metarun.algos.metric.feat import FEAT
from metarun.core.tasks import Batch, EpisodeShape, Examples
from metarun.ops.freezing import freeze


class Flat(nn.Module):
    """Pixels as embeddings, by a weight that training must leave."""

    out_features = 784

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) * self.weight


def caml(backbone: nn.Module | None = None, most_ways: int = 6) -> CAML:
    torch.manual_seed(0)
    return CAML(backbone or Flat(), 16, 2, 2, most_ways, "l2n", "auto", 0)


def feat(backbone: nn.Module) -> FEAT:
    torch.manual_seed(0)
    return FEAT(backbone, 8.0, 0.0, "auto", 0).train()


def test_codes_have_length_one_and_equal_angles() -> None:
    """Of d codes that sum to 0 and are alike, the products of two are -1/(d-1)."""
    products = make_codes(5) @ make_codes(5).T
    assert torch.allclose(products, torch.full((5, 5), -0.25).fill_diagonal_(1), atol=1e-6)


def test_neither_the_order_of_the_support_set_nor_other_queries_matter(doubles: None) -> None:
    learner = caml().eval()
    x, y, query = torch.randn(6, 1, 28, 28), torch.tensor([0, 0, 1, 1, 2, 2]), torch.randn(4, 1, 28, 28)
    order = torch.tensor([3, 5, 0, 2, 1, 4])
    found = learner.adapt_to(Examples(x, y), 3)(query)
    assert torch.allclose(found, learner.adapt_to(Examples(x[order], y[order]), 3)(query))
    assert torch.allclose(found[2:], learner.adapt_to(Examples(x, y), 3)(query[2:]))
    assert not torch.allclose(found, learner.adapt_to(Examples(x, y.roll(1)), 3)(query))


@pytest.mark.parametrize(("layers", "features"), [(1, "l2n"), (2, "un"), (3, "l2n")])
def test_tasks_together_are_a_plain_transformer_over_the_sequence_of_each_query(
    doubles: None, layers: int, features: Literal["un", "l2n"]
) -> None:
    """What queries share is computed once, and what nobody reads not at all; Block alone does neither."""
    learner = CAML(Flat(), 16, layers, 2, 6, features, "auto", 0)
    params, classes = dict(learner.named_parameters()), torch.eye(3).expand(2, 3, 3)
    support, query = torch.randn(2, 3, 784), torch.randn(2, 4, 784)
    found = learner.compare(params, support, classes, query)
    with learner.encoded():
        assert torch.allclose(found[1], learner.compare(params, support[1], classes[1], query[1]))
    for task in range(2):
        shown, wanted = support[task], query[task]
        if features == "l2n":
            shown, wanted = (side / side.norm(dim=-1, keepdim=True) for side in (shown, wanted))
        known = torch.cat([shown, learner.codes[:3].double()], -1)
        for number in range(4):
            asked = torch.cat([wanted[number], learner.unknown])
            tokens = learner.sequence.embed(torch.cat([asked[None], known]))
            for block in learner.sequence.blocks:
                tokens = Block.forward(block, tokens, 4)  # type: ignore[arg-type]
            expected = learner.sequence.last(tokens[0]) @ learner.codes[:3].double().T
            assert torch.allclose(found[task, number], expected)


def test_as_many_tasks_run_together_as_their_sequences_allow() -> None:
    """15 queries with 5 support images each are 90 tokens, and 45 with 15 are 720: 5,000 hold 55 and 6 such tasks."""
    for n_query, k_shot, together in ((3, 1, 50), (9, 3, 6)):
        shape = EpisodeShape(5, k_shot, n_query)
        batch, learner = next(noise_tasks(shape, shape).episodes("test", 0, 100)), caml()
        with learner.encoded():
            assert (
                learner.chunk(batch._replace(query=Examples(batch.query.x[..., 0, :2, 0], batch.query.y)), 100)
                == together
            )


def test_training_on_embeddings_is_training_on_images_and_leaves_the_network() -> None:
    """The source's images are embedded once; an outer step on them has the same gradient."""
    shape = EpisodeShape(3, 1, 2)
    source, learner = noise_tasks(shape, shape), caml().train()
    embedded = next(learner.train_stream(source, 0, 4))
    assert embedded.support.x.shape == (4, 3, 784)
    plain = source.batch("train", np.arange(4))
    losses = []
    for batch in (embedded, plain):
        learner.zero_grad()
        losses.append(learner.meta_gradient(batch)["loss"])
        losses += [one.grad.clone() for one in learner.sequence.parameters() if one.grad is not None]
        assert not list(learner.backbone.parameters())
    half = len(losses) // 2
    assert half > 10
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(losses[:half], losses[half:], strict=True))


def test_any_method_by_comparison_trains_on_the_embeddings_of_a_frozen_network() -> None:
    """Of FEAT, whose network has nothing to learn: the gradient of its attention is that on images."""
    shape, net = EpisodeShape(3, 1, 2), Flat()
    source = noise_tasks(shape, shape)
    assert next(feat(net).train_stream(source, 0, 4)).support.x.shape == (4, 3, 1, 28, 28)
    freeze(net)
    learner, plain = feat(net), source.batch("train", np.arange(4))
    embedded = next(learner.train_stream(source, 0, 4))
    assert embedded.support.x.shape == (4, 3, 784)
    found = []
    for batch in (embedded, plain):
        learner.zero_grad()
        learner.meta_gradient(batch)
        found.append([one.grad.clone() for one in learner.attention.parameters() if one.grad is not None])
    assert len(found[0]) == 7
    assert all(torch.allclose(one, two, atol=1e-5) for one, two in zip(*found, strict=True))
    assert isinstance(learner.backbone, Flat)


def test_inputs_that_are_vectors_are_embedded_too() -> None:
    """As texts are: minus the inputs and minus the weight are the same."""
    support, query = Examples(torch.randn(3, 784), torch.arange(3)), torch.randn(2, 784)
    learner = caml().eval()
    found = learner.adapt_to(support, 3)(query)
    learner.backbone.weight.mul_(-1)
    assert torch.allclose(learner.adapt_to(Examples(-support.x, support.y), 3)(-query), found, atol=1e-6)
    assert not torch.allclose(learner.adapt_to(support, 3)(query), found, atol=1e-3)


@pytest.mark.parametrize("features", ["l2n", "un"])
def test_it_learns_to_read_tasks_of_long_embeddings_if_they_are_scaled(features: Literal["un", "l2n"]) -> None:
    """Of classes that are new in each task, from one image each, chance 1/3. Beside unscaled embeddings, here of length
    40, the codes drown and nothing is learned; with 13, as a ResNet-12 has, CIFAR-FS stayed at chance for 550 steps."""
    draw = torch.Generator().manual_seed(0)

    def make_batch() -> Batch:
        centres = torch.randn(16, 3, 1, 16, generator=draw)
        x = 10 * (centres + 0.3 * torch.randn(16, 3, 5, 16, generator=draw))  # [B, N, K + Q, D]
        y = torch.arange(3)[:, None].expand(16, 3, 5)
        sides = [Examples(x[:, :, part].flatten(1, 2), y[:, :, part].flatten(1)) for part in (slice(1), slice(1, 5))]
        return Batch(*sides, 3)

    torch.manual_seed(0)
    net = Flat()
    net.out_features = 16
    learner = CAML(net, 32, 2, 2, 6, features, "auto", 0)
    optimizer = torch.optim.Adam(learner.parameters(), 0.003)
    with learner.encoded():
        for _ in range(150):
            optimizer.zero_grad()
            learner.meta_gradient(make_batch())
            optimizer.step()
        learner.eval()
        accuracy = float(learner.evaluate(make_batch())["accuracy"].mean())
    assert accuracy > 0.8 if features == "l2n" else accuracy < 0.45


def test_images_that_are_augmented_or_normalised_together_come_as_images() -> None:
    shape = EpisodeShape(3, 1, 2)
    source = noise_tasks(shape, shape)
    batch = next(caml(conv4("transductive")).train_stream(source, 0, 2))
    assert batch.support.x.shape == (2, 3, 1, 28, 28)


def test_more_classes_than_codes_are_refused() -> None:
    with pytest.raises(ValueError, match="has codes for 2 classes, and a task has 3"):
        caml(most_ways=2).adapt_to(Examples(torch.randn(3, 1, 28, 28), torch.arange(3)), 3)(torch.randn(1, 1, 28, 28))
