from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from conftest import one_of_each
from omegaconf import DictConfig
from test_contract import NETWORKS, parts_of
from torch import Tensor, nn

from metarun.backbones import vit
from metarun.ops import context, norm
from metarun.ops.attention import FUSED
from metarun.ops.functional import call
from metarun.ops.layer_norm import LayerNorm, MapLayerNorm, make_exact
from metarun.ops.norm import BatchNorm


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 4, 4)])
def test_written_out_statistics_equal_torchs(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, layer = torch.randn(shape), BatchNorm(3, "transductive")
    torch.nn.init.normal_(layer.weight)
    native = layer(x)
    assert torch.allclose(torch.func.vmap(layer)(x[None])[0], native, atol=1e-12)


@pytest.mark.usefixtures("doubles")
def test_running_averages_are_those_of_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = BatchNorm(3, "running"), torch.nn.BatchNorm2d(3)
    for _ in range(4):
        x = torch.randn(5, 3, 4, 4) * 3 + 1
        with context.recording() as statistics:
            assert torch.allclose(ours(x), theirs(x))
        norm.update_running(ours, statistics)
    assert torch.allclose(ours.running_mean, theirs.running_mean)
    assert torch.allclose(ours.running_var, theirs.running_var)
    x = torch.randn(2, 3, 4, 4)
    assert torch.allclose(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("algo", one_of_each(NETWORKS))
def test_every_layer_of_a_learner_normalises_as_bn_says(settings: Callable[..., DictConfig], algo: str) -> None:
    made = parts_of(settings(f"algo={algo}", "bn=support")).learner
    assert {layer.mode for layer in made.modules() if isinstance(layer, BatchNorm)} == {"support"}
    made = parts_of(settings(f"algo={algo}", "bn=layer")).learner
    assert {type(layer) for layer in made.modules() if isinstance(layer, BatchNorm | MapLayerNorm)} == {MapLayerNorm}


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 4, 4)])
def test_layer_normalisation_is_of_each_image_by_itself(shape: tuple[int, ...]) -> None:
    """All numbers of an image have mean 0 and variance 1, before each channel gets its weight and bias."""
    torch.manual_seed(0)
    x, layer = torch.randn(shape) * 3 + 1, MapLayerNorm(3)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    channel = (1, 3, *(1,) * (len(shape) - 2))
    flat = x.flatten(1)
    plain = (flat - flat.mean(1, keepdim=True)) / (flat.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    expected = plain.reshape(shape) * layer.weight.reshape(channel) + layer.bias.reshape(channel)
    assert torch.allclose(layer(x), expected, atol=1e-12)
    assert torch.allclose(torch.func.vmap(layer)(x[None])[0], expected, atol=1e-12)


def test_an_inner_loop_normalises_by_its_own_batch_at_test_time_too() -> None:
    layer, x = BatchNorm(3, "running").eval(), torch.randn(9, 3) * 5 + 2
    assert torch.allclose(layer(x), x, atol=1e-3)  # averages start at mean 0, variance 1
    with context.adapting():
        assert torch.allclose(layer(x).mean(0), torch.zeros(3), atol=1e-5)


def test_support_statistics_do_not_see_the_queries() -> None:
    layer, support = BatchNorm(3, "support"), torch.randn(4, 3)
    with context.support_rows(4):
        one, other = (layer(torch.cat([support, queries])) for queries in (torch.randn(2, 3), torch.randn(2, 3) * 9))
    assert torch.equal(one[:4], other[:4])


CONTEXTS = {  # by what they change
    "support_rows": lambda: context.support_rows(4),
    "adapting": context.adapting,
    "restoring": context.restoring,
    "twice": lambda: context.differentiated(twice=True),
    "recorded": context.recording,
    "way": lambda: context.convolving("patches"),
}


def test_every_context_has_its_test() -> None:
    assert set(CONTEXTS) == set(vars(context._Now()))


@pytest.mark.parametrize("changed", CONTEXTS)
def test_an_exception_inside_a_context_ends_it_as_its_end_does(monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    """Else all later jobs of a sweep would run as in the inner loop in which one of them failed."""
    monkeypatch.setattr(context, "now", context._Now())
    before = dict(vars(context.now))
    inside: dict[str, object] = {}
    with pytest.raises(KeyError), CONTEXTS[changed]():
        raise KeyError(inside.update(vars(context.now)))
    assert {name for name, value in inside.items() if value != before[name]} == {changed}
    assert vars(context.now) == before


def test_contexts_inside_each_other_end_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "now", context._Now())
    with context.adapting(), context.support_rows(4):
        with pytest.raises(KeyError), context.adapting(), context.support_rows(5):
            raise KeyError
        assert (context.in_inner_loop(), context.now.support_rows) == (True, 4)
    assert (context.in_inner_loop(), context.now.support_rows) == (False, None)


def transformer() -> nn.Module:
    """Its attention, too, torch computes by a fused kernel: with no second derivative, and a fast path in eval mode."""
    return nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True))


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: BatchNorm(4, "transductive"), lambda: nn.BatchNorm2d(4)),
        (lambda: MapLayerNorm(4), lambda: nn.GroupNorm(1, 4)),
        (lambda: LayerNorm([4, 2, 2]), lambda: nn.LayerNorm([4, 2, 2])),
        (lambda: nn.LayerNorm([4, 2, 2]), lambda: nn.LayerNorm([4, 2, 2])),
        (lambda: nn.LayerNorm(2, bias=False), lambda: nn.LayerNorm(2, bias=False)),
        (lambda: nn.LayerNorm(2, elementwise_affine=False), lambda: nn.LayerNorm(2, elementwise_affine=False)),
        (lambda: nn.InstanceNorm2d(4, affine=True), lambda: nn.InstanceNorm2d(4, affine=True)),
        (lambda: nn.InstanceNorm2d(4), lambda: nn.InstanceNorm2d(4)),
        (
            lambda: nn.Sequential(nn.Flatten(2), nn.InstanceNorm1d(4, affine=True)),
            lambda: nn.Sequential(nn.Flatten(2), nn.InstanceNorm1d(4, affine=True)),
        ),
        (transformer, transformer),
        (lambda: transformer().eval(), transformer),
    ],
)
def test_a_network_of_ones_own_inside_grad_and_vmap_has_the_gradient_of_a_plain_loop(
    ours: Callable[[], nn.Module], theirs: Callable[[], nn.Module]
) -> None:
    """A learner's author who vectorises by himself enters no context: torch itself knows of its transforms. Of torch's
    own layers a run makes those that differentiate right."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), ours(), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    make_exact(net)
    theta = {name: value.detach() for name, value in net.named_parameters()}
    xs, ys = torch.randn(3, 6, 1, 4, 4), torch.randint(0, 3, (3, 6))

    def after_one_step(params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        def loss(at: dict[str, Tensor]) -> Tensor:
            return F.cross_entropy(call(net, at, x), y)

        gradient = torch.func.grad(loss)(params)
        return loss({name: value - 0.5 * gradient[name] for name, value in params.items()})

    together = torch.func.grad(lambda p: torch.func.vmap(after_one_step, (None, 0, 0))(p, xs, ys).mean())(theta)
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), theirs(), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    at = {name: value.clone().requires_grad_() for name, value in theta.items()}
    total = torch.zeros(())
    for x, y in zip(xs, ys, strict=True):
        with context.adapting():  # which a plain loop has to say
            loss = F.cross_entropy(call(plain, at, x), y)
        gradient = torch.autograd.grad(loss, list(at.values()), create_graph=True)
        phi = {name: value - 0.5 * g for (name, value), g in zip(at.items(), gradient, strict=True)}
        total = total + F.cross_entropy(call(plain, phi, x), y) / 3
    alone = torch.autograd.grad(total, list(at.values()))
    for (name, one), other in zip(together.items(), alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10, msg=name)
    assert all(allowed() for allowed, _ in FUSED)  # as before


def test_a_run_makes_torch_s_own_layers_exact(
    settings: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a network of one's own."""
    monkeypatch.setattr(vit, "LayerNorm", nn.LayerNorm)
    learner = parts_of(settings("algo=protonet", "backbone=vit")).learner
    assert {type(layer) for layer in learner.modules() if isinstance(layer, nn.LayerNorm)} == {LayerNorm}


def test_an_unknown_mode_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="bn=batch is not one of transductive, support, running, layer, none"):
        BatchNorm(3, "batch")


def test_what_is_said_of_a_network_is_said_of_all_its_layers() -> None:
    """As in a network of one's own whose layers have several modes."""
    layers = {mode: BatchNorm(2, mode) for mode in ("running", "support", "transductive")}
    for modes in (["running"], ["running", "transductive"], ["support", "running"], ["transductive"], []):
        network = nn.Sequential(nn.Linear(2, 2), *(layers[mode] for mode in modes))
        assert norm.normalises_rows_alone(network) == (set(modes) <= {"running"})
        assert norm.uses_support_statistics(network) == ("support" in modes)
        assert norm.has_batch_norm(network) == bool(modes)
        assert norm.find_running_layers(network) == [layers["running"]] * ("running" in modes)
