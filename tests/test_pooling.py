"""Reference tests: our max-pooling and its derivatives against torch's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.fx.experimental.proxy_tensor import make_fx

from metarun.ops.convolution import put_channels_last
from metarun.ops.pooling import MaxPool2d, _Pool

pytestmark = pytest.mark.usefixtures("doubles")

LAYERS = [(2,), (3, 2, 1), ((2, 3), (1, 2), (0, 1))]


def bent(layer: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A gradient that needs the second derivative of a layer."""

    def steep(x: Tensor) -> Tensor:
        return torch.func.grad(lambda x: layer(x.square()).sin().sum())(x).sin().sum()

    return torch.func.grad(steep)


@pytest.mark.parametrize("setting", LAYERS)
def test_the_derivatives_of_a_layer_are_those_of_finite_differences(setting: tuple) -> None:
    torch.manual_seed(0)
    ours, x = MaxPool2d(*setting), torch.randn(2, 3, 5, 6).requires_grad_()
    side, stride, padding = ((2, 2), (2, 2), (0, 0)) if len(setting) == 1 else setting
    geometry = [(each, each) if isinstance(each, int) else each for each in (side, stride, padding)]
    assert torch.equal(_Pool.apply(x, *geometry)[0], ours(x))
    assert gradcheck(lambda x: _Pool.apply(x, *geometry)[0].sin(), x)
    assert gradgradcheck(lambda x: _Pool.apply(x, *geometry)[0].sin(), x)


@pytest.mark.parametrize("order", [torch.clone, put_channels_last])
@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("setting", LAYERS)
def test_under_vmap_a_layer_does_for_each_task_what_torchs_does_to_the_bit(
    setting: tuple, at: int, order: Callable[[Tensor], Tensor]
) -> None:
    torch.manual_seed(0)
    ours, torchs, x = MaxPool2d(*setting), nn.MaxPool2d(*setting), torch.randn(3, 2, 4, 5, 6)
    xs = order(x.movedim(0, 1).flatten(1, 2)).unflatten(1, (3, 4)).movedim(1, at)  # the tasks second in memory
    for function in (lambda layer: layer, bent):
        together = torch.func.vmap(function(ours), at)(xs)
        for one, task in zip(together, x, strict=True):
            assert torch.equal(one, function(torchs)(task))


def test_a_third_derivative_is_right_too() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4)
    thirds = (torch.func.grad(lambda x, of=of: bent(of)(x).sin().sum()) for of in (MaxPool2d(2), nn.MaxPool2d(2)))
    ours, torchs = (third(x) for third in thirds)
    assert torchs.abs().max() > 0.1
    torch.testing.assert_close(ours, torchs)


def test_images_of_tasks_that_lie_side_by_side_are_pooled_where_they_lie() -> None:
    def copies(layer: Callable[[Tensor], Tensor]) -> int:
        def pooled(x: Tensor) -> Tensor:
            return torch.func.vmap(torch.func.grad(lambda x: F.relu(layer(x)).square().sum()), 1, 1)(x)

        return sum(node.target == torch.ops.aten.clone.default for node in make_fx(pooled)(x).graph.nodes)

    x = torch.randn(2, 3, 4, 6, 6)
    assert copies(MaxPool2d(2)) == 0 < copies(nn.MaxPool2d(2))
