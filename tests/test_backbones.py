"""Backbones: sizes as published, second order against plain loops, noise, and torchvision's models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import maml_settings, noise_tasks, quick_if
from omegaconf import DictConfig
from test_contract import Parts, meta_step, parts_of, same, state_of
from test_gradients import ENGINES, furthest, meta_gradient
from torch import Tensor, nn
from torchvision import models
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops import StochasticDepth
from torchvision.transforms.v2 import functional as v2

from metarun.algos.gradient.maml import MAML
from metarun.backbones.conv4 import Conv4
from metarun.backbones.conv4_r2d2 import R2D2Network
from metarun.backbones.resnet import ResNet
from metarun.backbones.resnet12 import ResNet12
from metarun.backbones.torchvision_nets import Torchvision
from metarun.backbones.trained_network import replace_layers
from metarun.backbones.vit import Block, ViT
from metarun.backbones.wrn import WideBlock, WideResNet
from metarun.core.objectives import classification
from metarun.core.tasks import Batch, EpisodeShape
from metarun.ops import context
from metarun.ops.noise import DropBlock, DropPath, Noise
from metarun.ops.norm import BatchNorm
from metarun.run import checkpoint
from metarun.settings.build import build_learner
from metarun.settings.conf import CONF
from metarun.settings.resolve import resolve

Settings = Callable[..., DictConfig]
NETWORKS = sorted({path.stem for path in (CONF / "backbone").glob("*.yaml")} - {"none", "mlp_small"})
SMALL = "shufflenet_v2_x0_5"
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5,), (0.5,)


def count(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())


@pytest.mark.parametrize(
    ("side", "make", "settings", "millions", "features", "map_shape"),
    [
        (84, Conv4, {}, 0.1128, 1600, (64, 5, 5)),  # Snell 2017
        (84, Conv4, {"layers": 6, "halvings": 4}, 0.1868, 1600, (64, 5, 5)),  # Chen 2019
        (84, ResNet, {}, 4.898, 512, (512, 11, 11)),
        (224, ResNet, {}, 4.906, 512, (512, 7, 7)),  # Chen 2019
        (224, ResNet, {"blocks": 2}, 11.177, 512, (512, 7, 7)),  # He 2016: 11.690 with 0.513 in the head
        (84, ResNet12, {}, 12.424, 640, (640, 5, 5)),  # Lee 2019
        (84, ResNet12, {"pool": False}, 12.424, 16000, (640, 5, 5)),
        (84, ResNet12, {"widths": (64, 128, 256, 512)}, 7.997, 512, (512, 5, 5)),  # Chen 2021
        (32, WideResNet, {}, 36.473, 640, (640, 8, 8)),  # Zagoruyko 2016: 36.5
        (84, ViT, {}, 2.762, 192, (192, 7, 7)),
    ],
)
def test_parameters_and_features_are_as_published(
    side: int,
    make: type[nn.Module],
    settings: dict[str, object],
    millions: float,
    features: int,
    map_shape: tuple[int, ...],
) -> None:
    with torch.device("meta"):
        network = make((3, side, side), **({} if make is ViT else {"bn": "running"}), **settings)
        x = torch.empty(1, 3, side, side)
    assert count(network) / 1e6 == pytest.approx(millions, rel=5e-4)
    assert network.eval()(x).shape == (1, features)
    assert network.feature_map(x).shape[1:] == map_shape == network.map_shape
    assert network.out_features == features


@pytest.mark.usefixtures("doubles")
def test_resnet18_for_large_images_is_torchvisions_with_the_same_weights() -> None:
    """Both list their weights in the order of their layers."""
    torch.manual_seed(0)
    ours, theirs = ResNet((3, 40, 40), "running", blocks=2, stem="large"), models.resnet18()
    theirs.fc = nn.Identity()
    theirs(torch.randn(2, 3, 40, 40))  # moves the running averages off their start
    values = [value for name, value in theirs.state_dict().items() if "num_batches" not in name]
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))
    x = torch.randn(1, 3, 40, 40)
    assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-12)


@pytest.mark.usefixtures("doubles")
def test_conv4_has_a_width_for_each_layer_and_a_leaky_relu_as_in_the_plain_formula() -> None:
    torch.manual_seed(0)
    network, out = Conv4((2, 12, 12), "none", [3, 4, 5], layers=3, halvings=2, slope=0.3), torch.randn(6, 2, 12, 12)
    x = out
    for layer, (weight, bias) in enumerate(zip(*[iter(network.parameters())] * 2, strict=True)):
        out = F.conv2d(out, weight, bias, padding=1)
        out = torch.where(out > 0, out, 0.3 * out)
        out = F.max_pool2d(out, 2) if layer < 2 else out
    assert torch.allclose(network(x), out.flatten(1), atol=1e-12)
    assert network.map_shape == (5, 3, 3)
    assert network.out_features == 45
    with pytest.raises(ValueError, match=r"backbone.hidden=\[3, 4\] has 2 numbers, and backbone.layers is 4"):
        Conv4((2, 16, 16), "none", [3, 4])


def test_r2d2s_features_are_as_published() -> None:
    """On mini-ImageNet 51,200 numbers: 384 x 10 x 10 of the third block and 512 x 5 x 5 of the fourth."""
    with torch.device("meta"):
        large = R2D2Network((3, 84, 84), "running", (96, 192, 384, 512))
        assert large.eval()(torch.empty(1, 3, 84, 84)).shape == (1, 51_200)
        assert large.out_features == 51_200
        assert R2D2Network((3, 32, 32), "running").out_features == 64 * 16 + 64 * 4


@pytest.mark.usefixtures("doubles")
def test_r2d2s_features_are_those_of_the_plain_formula_and_lose_numbers_in_training_alone() -> None:
    torch.manual_seed(0)
    network, x = R2D2Network((2, 12, 12), "none", (3, 4, 5), drop_rate=0.4), torch.randn(6, 2, 12, 12)
    out, maps = x, []
    for weight, bias in zip(*[iter(network.parameters())] * 2, strict=True):
        out = F.max_pool2d(F.conv2d(out, weight, bias, padding=1), 2)
        out = torch.where(out > 0, out, 0.1 * out)
        maps.append(out.flatten(1))
    expected = torch.cat(maps[1:], 1)  # 4 x 3 x 3 + 5 x 1 x 1
    assert torch.allclose(network.eval()(x), expected, atol=1e-12)
    trained = network.train()(x)
    kept = trained[:, :36] != 0  # of the last but one map, whose noise nothing follows
    assert torch.allclose(trained[:, :36][kept], expected[:, :36][kept] / 0.6, atol=1e-12)
    assert 0.3 < 1 - kept.double().mean() < 0.5
    assert 0.2 < (trained[:, 36:] == 0).double().mean() < 0.6


def tasks_of(side: int) -> Batch:
    shape = EpisodeShape(3, 2, 1)
    return noise_tasks(shape, shape, size=side).batch("train", np.arange(2))


def maml_on(backbone: nn.Module, engine: str) -> MAML:
    return MAML(backbone, 3, classification, **maml_settings(0.1, 2, *ENGINES[engine]))


def plain_resnet12(p: dict[str, Tensor], x: Tensor, prefix: str) -> Tensor:
    """ResNet-12 from textbook operations, without any module of ours."""

    def normed(x: Tensor, at: str, padding: int) -> Tensor:
        i = int(at.rpartition(".")[2])
        x = F.conv2d(x, p[f"{at}.weight"], padding=padding)
        mean = x.mean((0, 2, 3), keepdim=True)
        var = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
        after = at[: -len(str(i))] + str(i + 1)
        weight, bias = (p[f"{after}.{k}"][None, :, None, None] for k in ("weight", "bias"))
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    for block in range(2):
        at = f"{prefix}.{2 * block}"
        out = x
        for layer in range(3):
            out = normed(out, f"{at}.body.{3 * layer}", 1)
            out = torch.where(out > 0, out, 0.1 * out) if layer < 2 else out
        out = out + normed(x, f"{at}.shortcut.0", 0)
        x = F.max_pool2d(torch.where(out > 0, out, 0.1 * out), 2)
    return x.mean((2, 3))


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("engine", quick_if(("vmap",), ("loop", "vmap", "learn2learn")))
def test_maml_meta_gradient_on_resnet12_is_that_of_a_plain_loop(engine: str) -> None:
    torch.manual_seed(1)
    learner, tasks = maml_on(ResNet12((1, 16, 16), "transductive", (4, 6), drop_rate=0.0), engine), tasks_of(16)
    theta = {name: value.detach().clone().requires_grad_() for name, value in learner.named_parameters()}

    def loss(p: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        features = plain_resnet12(p, x, "net.backbone.layers")
        return F.cross_entropy(features @ p["net.head.weight"].T + p["net.head.bias"], y)

    losses = []
    for i in range(tasks.n_tasks):
        phi = dict(theta)
        for _ in range(2):
            at = loss(phi, tasks.support.x[i], tasks.support.y[i])
            grads = torch.autograd.grad(at, list(phi.values()), create_graph=True)
            phi = {name: phi[name] - 0.1 * grad for name, grad in zip(list(phi), grads, strict=True)}
        losses.append(loss(phi, tasks.query.x[i], tasks.query.y[i]))
    expected = torch.autograd.grad(torch.stack(losses).mean(), list(theta.values()))
    assert furthest(meta_gradient(learner, tasks), dict(zip(theta, expected, strict=True))) < 1e-9


TINY = {
    "conv6": lambda: Conv4((1, 16, 16), "transductive", 4, layers=6, halvings=2),
    "conv4_r2d2": lambda: R2D2Network((1, 16, 16), "transductive", (3, 4, 5), drop_rate=0.0),
    "resnet10": lambda: ResNet((1, 16, 16), "support", (4, 6)),
    "resnet18": lambda: ResNet((1, 32, 32), "transductive", (4, 6), blocks=2, stem="large"),
    "wrn": lambda: WideResNet((1, 16, 16), "transductive", depth=10, width=1),
    "vit": lambda: ViT((1, 16, 16), hidden=8, layers=2, heads=2, patch_size=4),
    "layers of torchvision": lambda: layers_of_torchvision(),
}


def layers_of_torchvision() -> nn.Module:
    """Each layer that is replaced in torchvision's models, with noise too rare to be met."""
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, 3), LayerNorm2d(6), nn.GELU()]
    layers += [StochasticDepth(1e-12, "row"), nn.Flatten(), nn.Dropout(1e-12), nn.LayerNorm(96)]
    network = nn.Sequential(*layers)
    replace_layers(network, "transductive", frozen=False)
    assert not any(type(layer) in (nn.BatchNorm2d, nn.LayerNorm, LayerNorm2d) for layer in network.modules())
    network.out_features = 96
    return network


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("engine", quick_if(("vmap",), ("loop", "vmap")))
@pytest.mark.parametrize("network", TINY)
def test_maml_goes_through_the_inner_loop_on_every_network_as_finite_differences_say(network: str, engine: str) -> None:
    """The meta-loss's slope in the meta-gradient's own direction, where a missing second derivative shows most."""
    torch.manual_seed(1)
    learner, tasks = maml_on(TINY[network](), engine), tasks_of(32 if network == "resnet18" else 16)
    gradient = meta_gradient(learner, tasks)
    length = torch.stack([part.square().sum() for part in gradient.values()]).sum().sqrt()

    def loss_at(distance: float) -> Tensor:
        with torch.no_grad():
            for name, value in learner.named_parameters():
                value += distance * gradient[name] / length
            loss = learner.meta_loss(tasks)[0]
            for name, value in learner.named_parameters():
                value -= distance * gradient[name] / length
        return loss

    step = 1e-6
    slope = (loss_at(step) - loss_at(-step)) / (2 * step)
    assert slope == pytest.approx(float(length), rel=1e-4)


@pytest.mark.parametrize("backbone", NETWORKS)
def test_every_batch_norm_layer_obeys_the_runs_bn(settings: Settings, backbone: str) -> None:
    config = settings("algo=protonet", f"backbone={backbone}", "bn=running")
    parts = parts_of(config)
    for bn in ("transductive", "support", "none", "running"):
        config.bn = bn
        network = list(build_learner(resolve(config), parts.source).modules())
        modes = {layer.mode for layer in network if isinstance(layer, BatchNorm)}
        assert modes == ({bn} if bn != "none" and backbone not in ("vit", "open_clip") else set())
        assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network)
    before = state_of(parts.learner)
    assert torch.isfinite(meta_step(parts, 0)["loss"])
    after = state_of(parts.learner)
    still = [name for name in before if torch.equal(before[name], after[name])]
    assert not still or backbone == "timm"  # whose residual branches begin with a factor of 0
    assert len(still) < len(before) / 3
    scores = parts.learner.eval().evaluate(next(parts.source.episodes("val", 0, 2)))
    assert torch.isfinite(scores["loss"]).all()
    assert same(after, state_of(parts.learner))


ON_RESNET12 = ["maml_pp", "meta_sgd", "meta_curvature", "proto_maml", "boil", "imaml", "reptile", "minibatch_prox"]


@pytest.mark.parametrize(
    ("algo", "backbone"),
    [(algo, "resnet12") for algo in ON_RESNET12]
    + [("maml", network) for network in ("resnet10", "wrn28_10", "vit", "torchvision")],
)
def test_learners_by_gradient_run_on_deep_networks(settings: Settings, algo: str, backbone: str) -> None:
    few = ["run.meta_batch_size=2", "algo.inner_steps=1", "algo.test_inner_steps=1"]
    parts = parts_of(settings(f"algo={algo}", f"backbone={backbone}", *few))
    batch = next(parts.learner.train().train_stream(parts.source, 0, 2))
    assert torch.isfinite(parts.learner.meta_step(batch, parts.optims)["loss"])
    assert torch.isfinite(parts.learner.eval().evaluate(next(parts.source.episodes("val", 0, 2)))["loss"]).all()


@pytest.mark.parametrize("backbone", ["resnet12", "vit", "torchvision"])
def test_relation_networks_compare_maps_of_any_network(settings: Settings, backbone: str) -> None:
    assert torch.isfinite(meta_step(parts_of(settings("algo=relationnet", f"backbone={backbone}")), 0)["loss"])


@pytest.mark.parametrize(("side", "block_size", "square"), [(84, None, 5), (32, None, 2), (32, 3, 3)])
def test_resnet12_drops_squares_behind_its_last_two_blocks_and_numbers_behind_the_others(
    side: int, block_size: int | None, square: int
) -> None:
    net = ResNet12((3, side, side), "running", (4, 4, 4, 4), block_size=block_size)
    sizes = [module.size for module in net.modules() if isinstance(module, DropBlock)]
    assert sizes == [1, 1, square, square]


def test_the_first_blocks_of_conv4_halve_the_maps() -> None:
    net, sides = Conv4((1, 16, 16), "transductive", 4, layers=3, halvings=2), []
    for layer in net.blocks:
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(lambda layer, given, out: sides.append(out.shape[-1]))
    net(torch.zeros(2, 1, 16, 16))
    assert sides == [8, 4, 4]


@pytest.mark.usefixtures("doubles")
def test_attention_of_a_vit_is_torchs() -> None:
    torch.manual_seed(0)
    block, tokens = Block(8, 2, 2), torch.randn(3, 5, 8)
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(block.query_key_value.weight)
        theirs.in_proj_bias.copy_(block.query_key_value.bias)
        theirs.out_proj.load_state_dict(block.out.state_dict())
    expected, _ = theirs(tokens, tokens, tokens, need_weights=False)
    assert torch.allclose(block.attention(tokens), expected, atol=1e-12)


def test_dropblock_zeroes_whole_squares_and_keeps_the_mean() -> None:
    """Of a 9x9 map's 49 places for a 3x3 square each is drawn with 0.1 / 9 * 81 / 49 (equation 1)."""
    torch.manual_seed(0)
    x = DropBlock(0.1, 3)(torch.ones(200, 16, 9, 9))
    dropped = (x == 0).float()
    assert 0.08 < dropped.mean() < 0.1  # less than 0.1, as squares overlap
    assert x.mean() == pytest.approx(1)
    assert len(x.unique()) == 2
    corners = 1 - F.max_pool2d(1 - dropped, 3, 1)  # 1 where all of a square is dropped
    assert torch.equal(F.max_pool2d(F.pad(corners, (2, 2, 2, 2)), 3, 1), dropped)
    assert DropBlock(0.5, 5)(torch.ones(64, 4, 2, 3)).eq(0).any()  # on a map smaller than the square


def test_noise_is_off_in_inner_loops_and_in_testing_and_differs_between_tasks() -> None:
    for layer in (DropBlock(0.5, 2), nn.Dropout(0.5), DropPath(0.5)):
        noise, x = Noise(layer), torch.ones(3, 8, 4, 4)
        torch.manual_seed(0)
        one, other = noise(x), noise(x)
        torch.manual_seed(0)
        assert torch.equal(one, noise(x))
        assert not torch.equal(one, other)
        with context.adapting():
            assert torch.equal(noise(x), x)
        together = torch.func.vmap(noise, randomness="different")(torch.stack([x, x]))
        assert not torch.equal(together[0], together[1])
        assert torch.equal(noise.eval()(x), x)


@pytest.mark.parametrize("algo", ["protonet", "maml"])
def test_dropblock_goes_on_where_it_was_when_a_run_is_resumed(settings: Settings, tmp_path: Path, algo: str) -> None:
    def parts(seed: int) -> Parts:
        return parts_of(settings(f"algo={algo}", "backbone=resnet12", "backbone.drop_rate=0.3", f"seed={seed}"))

    def step(parts: Parts, number: int) -> None:
        batch = next(parts.learner.train().train_stream(parts.source, number, 2))
        parts.learner.meta_step(batch, parts.optims)

    first = parts(0)
    step(first, 0)
    optim = first.optims["outer"].state_dict()
    checkpoint.save(tmp_path / "last.pt", {"learner": first.learner.state_dict(), "optim": optim})
    step(first, 1)
    resumed, loaded = parts(9), checkpoint.load(tmp_path / "last.pt")
    resumed.source = first.source
    resumed.learner.load_state_dict(loaded["learner"])
    resumed.optims["outer"].load_state_dict(loaded["optim"])
    checkpoint.restore_random(loaded["random"])
    step(resumed, 1)
    assert same(state_of(first.learner), state_of(resumed.learner))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which torchvision finds weights, and no network to fetch others from."""

    def unreachable(*args: object, **more: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    monkeypatch.setattr("torch.hub._hub_dir", None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def saved(hub: Path) -> tuple[nn.Module, Path]:
    """A model with weights and averages of its own, saved where torchvision would download them to."""
    torch.manual_seed(3)
    model = models.get_model(SMALL)
    with torch.no_grad():
        for _ in range(20):  # so that the averages are those of its layers, and its outputs depend on its inputs
            model(torch.randn(8, 3, 64, 64))
    file = hub / models.get_model_weights(SMALL).DEFAULT.url.rpartition("/")[2]
    torch.save(model.state_dict(), file)
    model.fc = nn.Identity()
    return model.eval(), file


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_trained_weights_get_images_scaled_and_normalised_as_they_want_whatever_the_datas_look(
    saved: tuple[nn.Module, Path], frozen: bool, channels: int
) -> None:
    model, file = saved
    look = HALF if channels == 1 else ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    pixels = torch.rand(4, channels, 32, 32)
    x = v2.normalize(pixels, list(look[0]), list(look[1]))
    scaled = F.interpolate(pixels.expand(-1, 3, -1, -1), (224, 224), mode="bilinear", align_corners=False)
    expected = model(v2.normalize(scaled, list(IMAGENET[0]), list(IMAGENET[1])))
    shifted = model(v2.normalize(scaled, [0.0] * 3, list(IMAGENET[1])))
    assert (shifted - expected).norm() > 0.01 * expected.norm()
    for weights in ("DEFAULT", "IMAGENET1K_V1", str(file)):
        ours = Torchvision((channels, 32, 32), "running", look, SMALL, weights, frozen)
        assert ours.size == (224, 224)
        assert (ours.eval()(x) - expected).norm() < 1e-4 * expected.norm()
    assert count(ours) == (0 if frozen else count(model))


def test_a_frozen_network_learns_nothing_in_either_loop_and_the_head_does(settings: Settings) -> None:
    frozen = ["backbone=torchvision", "backbone.frozen=true", "algo.task_chunk=2"]
    for algo, bn in (("maml", "running"), ("baseline", "transductive"), ("finetune", "running")):
        few = ["algo.test_inner_steps=2", "run.meta_batch_size=2"]
        parts = parts_of(settings(f"algo={algo}", f"bn={bn}", *frozen, *few))
        before = state_of(parts.learner)
        for step in range(2):
            meta_step(parts, step)
        parts.learner.eval().evaluate(next(parts.source.episodes("val", 0, 2)))
        moved = {name for name, value in state_of(parts.learner).items() if not torch.equal(value, before[name])}
        assert moved == dict(parts.learner.named_parameters()).keys()
        assert len(moved) == 2
    with pytest.raises(ValueError, match=r"ProtoNet learns nothing but its network, .*set backbone.frozen=false, or"):
        parts_of(settings("algo=protonet", "backbone=torchvision", "backbone.frozen=true"))


def test_weights_that_cannot_be_had_say_what_to_do_in_one_line(hub: Path, saved: tuple[nn.Module, Path]) -> None:
    def error(name: str = SMALL, weights: str | None = None, bn: str = "running", size: int | None = None) -> str:
        with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
            Torchvision((3, 28, 28), bn, HALF, name, weights, False, size)
        return str(caught.value)

    (hub / "text.pth").write_text("<html>")
    torch.save({"one": torch.ones(1)}, hub / "other.pth")
    url = models.get_model_weights("resnet18").DEFAULT.url
    assert f"no network>): put {url} into {hub}, or set backbone.weights=FILE" in error("resnet18", "DEFAULT")
    assert "neither a file nor one of shufflenet_v2_x0_5's: IMAGENET1K_V1, DEFAULT" in error(weights="V3")
    assert "cannot be read" in error(weights=str(hub / "text.pth"))
    assert "are not of this network: conv1.0.weight is missing" in error(weights=str(hub / "other.pth"))
    assert "need its BatchNorm layers; set bn=running" in error(weights="DEFAULT", bn="none")
    assert "backbone.name=resnet19 is no classifier of torchvision; did you mean resnet18?" in error("resnet19")
    assert "alexnet does not take 3x28x28 images" in error("alexnet")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResNet12((3, 8, 8), "none"), "4 halvings leave nothing of 8x8 images; ResNet-12 needs 16 pixels"),
        (lambda: ResNet12((3, 84, 84), "none", drop_rate=1.0), "backbone.drop_rate=1.0 must be at least 0 and below 1"),
        (lambda: WideResNet((3, 32, 32), "none", depth=27), "backbone.depth=27 is not 6 n"),
        (lambda: ViT((3, 32, 32), heads=5), "backbone.hidden=192 is no multiple of backbone.heads=5"),
        (lambda: ViT((3, 32, 32), patch_size=33), "backbone.patch_size=33 is above the 32x32 pixels"),
        (lambda: R2D2Network((3, 8, 8), "none"), "4 halvings leave nothing of 8x8 images"),
        (lambda: R2D2Network((3, 84, 84), "none", drop_rate=1.5), "backbone.drop_rate=1.5 must be at least 0"),
        (lambda: ResNet((1,), "none"), "ResNet needs images, and the inputs are numbers of shape"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_wide_block_that_changes_the_shape_begins_its_shortcut_behind_the_first_normalisation() -> None:
    """The two convolutions of the branch give 0, so that what is left is the shortcut of relu(x)."""
    block, x = WideBlock(2, 3, "none", 2, 0.0), torch.randn(4, 2, 6, 6)
    with torch.no_grad():
        for layer in block.body.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.zero_()
                layer.bias.zero_()
    expected = F.conv2d(x.relu(), block.shortcut.weight, block.shortcut.bias, stride=2)
    torch.testing.assert_close(block(x), expected)
    assert not torch.allclose(expected, F.conv2d(x, block.shortcut.weight, block.shortcut.bias, stride=2))
