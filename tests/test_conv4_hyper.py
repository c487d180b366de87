"""A static hypernetwork's filters in float64: those of the paper's equations, their number and their size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metarun.backbones.conv4_hyper import HyperConv4
from metarun.ops.functional import call

pytestmark = pytest.mark.usefixtures("doubles")


def network(**changed: object) -> HyperConv4:
    torch.manual_seed(0)
    return HyperConv4((1, 12, 12), **({"bn": "none", "hidden": 5, "layers": 3, "embedding": 3} | changed))  # type: ignore[arg-type]


def filters_by_hand(net: HyperConv4, layer: int) -> Tensor:
    """Equation 2, one number after the other."""
    z = net.embeddings[layer]
    kernel = torch.zeros(5, 5, 3, 3)
    for i in range(5):
        a = [sum(net.inner[i, d, n] * z[n] for n in range(3)) + net.inner_bias[i, d] for d in range(3)]
        for o in range(5):
            for k in range(9):
                number = sum(net.outer[o, k, d] * a[d] for d in range(3)) + net.outer_bias[o, k]
                kernel[o, i, k // 3, k % 3] = number
    return kernel


def test_filters_are_those_of_the_papers_equations_and_layers_have_their_own() -> None:
    net = network()
    with torch.no_grad():
        net.inner_bias.normal_()
        net.outer_bias.normal_()
        for layer in (0, 1):
            assert torch.allclose(net.generate(layer), filters_by_hand(net, layer), rtol=0, atol=1e-13)
        assert not torch.allclose(net.generate(0), net.generate(1))


def test_features_are_of_plain_convolutions_with_these_filters() -> None:
    net, x = network(), torch.randn(2, 1, 12, 12)
    first = net.first[0]
    y = F.relu(F.max_pool2d(F.conv2d(x, first.weight, first.bias, padding=1), 2))
    for layer in (0, 1):
        y = F.relu(F.max_pool2d(F.conv2d(y, net.generate(layer), padding=1), 2))
    assert net.map_shape == (5, 1, 1)
    assert torch.allclose(net(x), y.flatten(1), rtol=1e-12)
    with pytest.raises(ValueError, match=r"4 halvings leave nothing of 12x12 images"):
        network(layers=4)


def test_it_has_as_few_numbers_as_the_paper_counts() -> None:
    """N_z D + d (N_z + 1) N_in + f N_out f (d + 1) for D generated layers, beside the first and the normalisation."""
    net = HyperConv4((1, 28, 28), "transductive")
    own = sum(p.numel() for name, p in net.named_parameters() if not name.startswith(("first.", "rest.")))
    assert own == 4 * 3 + 4 * 5 * 64 + 3 * 64 * 3 * 5 == 4172
    assert sum(net.generate(layer).numel() for layer in range(3)) == 110_592


def test_generated_filters_start_as_large_as_he_et_al_start_plain_ones() -> None:
    """The mean square over 300 networks, within a twentieth; a layer's filters share a vector of 3 numbers."""
    squares = []
    for seed in range(300):
        torch.manual_seed(seed)
        squares.append(HyperConv4((1, 8, 8), "none", hidden=8, layers=2, embedding=3).generate(0).square().mean())
    assert torch.stack(squares).mean().item() == pytest.approx(2 / (9 * 8), rel=0.1)


def test_tasks_at_once_with_weights_of_their_own_give_what_they_give_alone() -> None:
    net, x = network(bn="transductive"), torch.randn(3, 4, 1, 12, 12)
    weights = {name: value.detach() + 0.1 * torch.randn(3, *value.shape) for name, value in net.named_parameters()}
    together = torch.func.vmap(lambda own, images: call(net, own, images))(weights, x)
    for task in range(3):
        alone = call(net, {name: value[task] for name, value in weights.items()}, x[task])
        assert torch.allclose(together[task], alone, rtol=1e-9, atol=1e-12)
