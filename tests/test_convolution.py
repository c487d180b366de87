"""Reference tests: our convolution and batch normalisation, and their derivatives, against finite differences."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from metarun.ops import convolution
from metarun.ops.convolution import Conv2d, Geometry, convolve
from metarun.ops.functional import call
from metarun.ops.norm import BatchNorm
from metarun.ops.standardise import standardise

pytestmark = pytest.mark.usefixtures("doubles")


def leaf(*shape: int) -> Tensor:
    return torch.randn(shape).requires_grad_()


@pytest.mark.parametrize("geometry", [Geometry((2, 2), (1, 1), 1), Geometry((1, 1), (0, 0), 2)])
def test_the_derivatives_of_a_convolution_are_those_of_finite_differences(geometry: Geometry) -> None:
    torch.manual_seed(0)
    x, w = leaf(2, 4, 5, 5), leaf(2, 4 // geometry.groups, 3, 3)
    torch.testing.assert_close(convolve(x, w, geometry), F.conv2d(x, w, None, *geometry[:2], groups=geometry.groups))
    assert gradcheck(lambda x, w: convolve(x, w, geometry), (x, w))
    assert gradgradcheck(lambda x, w: convolve(x, w, geometry), (x, w))


@pytest.mark.parametrize("shape", [(6, 2), (3, 2, 2, 3)])
def test_the_derivatives_of_standardise_are_those_of_finite_differences(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    inputs = leaf(*shape), leaf(2), leaf(2)
    expected = F.batch_norm(inputs[0], None, None, *inputs[1:], training=True)
    torch.testing.assert_close(standardise(*inputs, 1e-5), expected)
    assert gradcheck(lambda *parts: standardise(*parts, 1e-5), inputs)
    assert gradgradcheck(lambda *parts: standardise(*parts, 1e-5), inputs)


def test_weights_that_lie_apart_in_memory_are_read_where_they_lie() -> None:
    """torch's kernel for images with their channels last in memory reads them as if they lay side by side."""
    torch.manual_seed(0)
    x, weights, bias = torch.randn(3, 2, 2, 3), leaf(2, 4), torch.zeros(2)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    assert gradcheck(lambda x, weights: standardise(x, weights[:, 1], bias, 1e-5), (x, weights))
    assert gradgradcheck(lambda x, weights: standardise(x, weights[:, 1], bias, 1e-5), (x, weights))
    layer = BatchNorm(2, "transductive")
    apart, beside = (
        torch.autograd.grad(call(layer, {"weight": w, "bias": bias}, x).sin().sum(), x)
        for w in (weights[:, 1], weights[:, 1].contiguous())
    )
    torch.testing.assert_close(apart, beside)


def third(layer: object, x: Tensor, w: Tensor) -> Tensor:
    """A number that needs the third derivative of a layer."""
    value = layer(x, w).sin().sum()
    for _ in range(3):
        (grad,) = torch.autograd.grad(value, w, create_graph=True)
        value = grad.sin().sum()
    return value


def test_third_derivatives_are_right_too() -> None:
    torch.manual_seed(0)
    x, w, bias = leaf(3, 2, 4, 4), leaf(2), torch.zeros(2)
    # The images depend on what is differentiated, and so mean and variance do.
    ours = third(lambda x, w: standardise(x * w[:, None, None].exp() + x**2, w, bias, 1e-5), x, w)
    plain = third(lambda x, w: written_out(x * w[:, None, None].exp() + x**2, w), x, w)
    torch.testing.assert_close(ours, plain)


def written_out(x: Tensor, w: Tensor) -> Tensor:
    mean = x.mean((0, 2, 3), keepdim=True)
    var = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt() * w[:, None, None]


@pytest.mark.parametrize("at", [(0, 0), (0, None), (None, 0), (1, 2)])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("rows", [convolution.CPU_MIN_ROWS, 2])
def test_under_vmap_a_layer_does_for_each_task_what_it_does_for_one(
    monkeypatch: pytest.MonkeyPatch, at: tuple[int | None, ...], groups: int, rows: int
) -> None:
    monkeypatch.setattr(convolution, "CPU_MIN_ROWS", rows)  # with 2 images a task: one order in memory, and the other
    torch.manual_seed(0)
    layer = Conv2d(4, 6, 3, stride=2, padding=1, groups=groups)
    x, w = torch.randn(3, 2, 4, 5, 5), torch.randn(3, *layer.weight.shape)
    xs, ws = (each[0] if where is None else each.movedim(0, where) for each, where in zip((x, w), at, strict=True))

    def loss(x: Tensor, w: Tensor) -> Tensor:
        params = {"weight": w, "bias": layer.bias}
        return standardise(torch.func.functional_call(layer, params, x), w[:, 0, 0, 0], w[:, 0, 1, 1], 1e-5).sin().sum()

    def bent(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        def steep(x: Tensor, w: Tensor) -> Tensor:
            return sum(grad.sin().sum() for grad in torch.func.grad(loss, (0, 1))(x, w))

        return torch.func.grad(steep, (0, 1))(x, w)

    together = torch.func.vmap(bent, in_dims=at)(xs, ws)
    for task in range(3):
        alone = bent(x[0 if at[0] is None else task], w[0 if at[1] is None else task])
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one[task], other)


@pytest.mark.parametrize(
    "at", [each for each in product((0, 1, None), (0, 1, None), (0, 1, None)) if each != (None,) * 3]
)
def test_under_vmap_images_weight_and_bias_may_each_be_of_all_tasks_or_of_one(at: tuple[int | None, ...]) -> None:
    torch.manual_seed(0)
    whole = leaf(3, 5, 2), leaf(3, 2), leaf(3, 2)
    given = [each[0] if where is None else each.movedim(0, where) for each, where in zip(whole, at, strict=True)]

    def bent(*inputs: Tensor) -> tuple[Tensor, ...]:
        def loss(*inputs: Tensor) -> Tensor:
            return standardise(*inputs, 1e-5).sin().sum()

        def steep(*inputs: Tensor) -> Tensor:
            return sum(grad.sin().sum() for grad in torch.func.grad(loss, (0, 1, 2))(*inputs))

        return torch.func.grad(steep, (0, 1, 2))(*inputs)

    for of in (bent, lambda *inputs: (standardise(*inputs, 1e-5),)):
        together = torch.func.vmap(of, in_dims=at)(*given)
        for task in range(3):
            alone = of(*(each[0 if where is None else task] for each, where in zip(whole, at, strict=True)))
            for one, other in zip(together, alone, strict=True):
                torch.testing.assert_close(one[task], other)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("rows", [convolution.CPU_MIN_ROWS, 2])
def test_under_vmap_a_layer_adds_the_bias_that_it_adds_to_one_task(
    monkeypatch: pytest.MonkeyPatch, groups: int, rows: int
) -> None:
    """The bias is not lost in a normalisation that follows, as it would be above."""
    monkeypatch.setattr(convolution, "CPU_MIN_ROWS", rows)
    torch.manual_seed(0)
    layer, x = Conv2d(4, 6, 3, stride=2, padding=1, groups=groups), torch.randn(3, 2, 4, 5, 5)
    assert layer.bias.abs().min() > 1e-3
    together = torch.func.vmap(layer)(x)
    alone = [F.conv2d(one, layer.weight, layer.bias, 2, 1, groups=groups) for one in x]
    torch.testing.assert_close(together, torch.stack(alone))


@pytest.mark.parametrize("at", [0, None])
def test_gradients_keep_to_the_order_in_memory_that_many_images_of_a_task_have(at: int | None) -> None:
    layer, x = Conv2d(4, 6, 3, stride=2, padding=1), torch.randn(3, convolution.CPU_MIN_ROWS, 4, 8, 8)
    w = layer.weight if at is None else layer.weight.expand(3, *layer.weight.shape)

    def squares(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        y = call(layer, {"weight": w, "bias": layer.bias}, x)
        return y.square().sum(), y

    gx, y = torch.func.vmap(torch.func.grad(squares, has_aux=True), (0, at), 1)(x, w)
    for images in (gx, y):  # [R, B, C, H, W]
        assert images.flatten(1, 2).is_contiguous(memory_format=torch.channels_last)
