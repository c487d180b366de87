from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from metarun.backbones.conv4 import Conv4
from metarun.ops import context, first_block, norm


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        first_block, "PIECE_NUMBERS", 8 * 20 * 16 * 3
    )  # of Conv4 with 8 filters three images: the last piece is one


def network(bn: str, channels: int = 1) -> Conv4:
    torch.manual_seed(0)
    made = Conv4((channels, 20, 16), bn, hidden=8)
    for layer in made.blocks:
        if isinstance(layer, norm.BatchNorm):
            nn.init.normal_(layer.weight)  # of both signs
            nn.init.normal_(layer.bias)
    for layer in norm.find_running_layers(made):
        nn.init.uniform_(layer.running_mean)
        nn.init.uniform_(layer.running_var, 0.5, 2.0)
    return made


def strokes(rows: int, channels: int = 1) -> Tensor:
    """Images [rows, channels, 20, 16] as handwriting is: of two values, one of them almost everywhere."""
    torch.manual_seed(1)
    return (torch.rand(rows, channels, 20, 16) > 0.9).to(torch.get_default_dtype())


def outcome(made: Conv4, features: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    """Features, the gradients of a function of them, and the recorded statistics."""
    with context.support_rows(4), context.recording() as recorded:
        out = features(x)
    gradients = torch.autograd.grad(out.sin().sum(), list(made.parameters()))
    return [out.detach(), *gradients, *(number for pair in recorded for number in pair)]


@pytest.mark.usefixtures("doubles", "small_pieces")
@pytest.mark.parametrize("bn", ["transductive", "support", "running"])
@pytest.mark.parametrize("training", [True, False])
def test_a_first_block_in_pieces_is_the_block(bn: str, training: bool) -> None:
    made, x = network(bn).train(training), strokes(10)
    assert first_block.runs_in_pieces(tuple(made.blocks)[:3], x)
    found, plain = outcome(made, made.feature_map, x), outcome(made, made.blocks, x)
    assert len(found) == len(plain)
    for one, other in zip(found, plain, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("doubles", "small_pieces")
def test_it_can_be_differentiated_twice() -> None:
    made, x = network("transductive"), strokes(10)
    found = []
    for features in (made.feature_map, made.blocks):
        parameters = list(made.parameters())
        first = torch.autograd.grad(features(x).sin().sum(), parameters, create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), parameters))
    assert all(torch.allclose(one, other, rtol=1e-9, atol=1e-9) for one, other in zip(*found, strict=True))


@pytest.mark.usefixtures("small_pieces")
def test_in_float32_it_is_no_further_from_float64_than_the_layers() -> None:
    made, x = network("transductive"), strokes(400)
    exact = outcome(made.double(), made.blocks, x.double())
    made.float()

    def error(features: Callable[[Tensor], Tensor]) -> float:
        pairs = zip(outcome(made, features, x), exact, strict=True)
        return max(float((one.double() - other).norm() / other.norm()) for one, other in pairs)

    assert error(made.feature_map) < 2 * error(made.blocks)


@pytest.mark.usefixtures("small_pieces")
def test_filters_that_see_only_rounding_of_large_numbers_give_numbers() -> None:
    """Of a smooth hill 10,000 high the differences of differences vary by less than float32 can tell."""
    slope = torch.sin(torch.linspace(0, torch.pi, 120)).square()
    x = 1e4 * torch.outer(slope, slope).expand(2, 1, 120, 120) * torch.tensor([1.0, 1.5]).reshape(2, 1, 1, 1)
    made, second = Conv4((1, 120, 120), "transductive", hidden=8), torch.tensor([1.0, -2.0, 1.0])
    with torch.no_grad():
        made.blocks[0].weight.copy_(torch.outer(second, second) * torch.arange(1, 9).reshape(8, 1, 1, 1))
    assert first_block.runs_in_pieces(tuple(made.blocks)[:3], x)
    assert torch.isfinite(made(x)).all()


@pytest.mark.usefixtures("small_pieces")
def test_only_what_gains_goes_in_pieces() -> None:
    first = tuple(network("transductive").blocks)[:3]
    assert first_block.runs_in_pieces(first, strokes(7))
    assert not first_block.runs_in_pieces(first, strokes(6))
    assert not first_block.runs_in_pieces(first, strokes(7).requires_grad_())
    assert not first_block.runs_in_pieces(tuple(network("none").blocks)[:3], strokes(7))
    assert not first_block.runs_in_pieces(tuple(network("transductive", 3).blocks)[:3], strokes(7, 3))
    assert not first_block.runs_in_pieces(tuple(Conv4((1, 20, 16), "transductive", 8, "stride").blocks)[:3], strokes(7))
    told = []
    torch.func.vmap(lambda x: (told.append(first_block.runs_in_pieces(first, x)), x)[1])(strokes(7)[None])
    assert told == [False]
