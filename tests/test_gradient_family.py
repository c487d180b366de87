"""What makes each gradient-based learner itself: reference and derived tests in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import inner_settings, maml_settings, quick_if
from hydra.utils import get_object
from omegaconf import DictConfig
from test_contract import FEWER_STEPS, choices
from test_gradients import ENGINES, INNER_LR, batch, conv4, furthest, meta_gradient, plain_conv4, waves
from torch import Tensor

from metarun.algos.base.inner_optimizer import InnerOptimizer, clip_gradient
from metarun.algos.base.learn2learn import learn2learn
from metarun.algos.gradient.anil import ANIL
from metarun.algos.gradient.boil import BOIL
from metarun.algos.gradient.cavia import CAVIA, ContextNetwork
from metarun.algos.gradient.imaml import IMAML, solve_by_conjugate_gradient
from metarun.algos.gradient.maml import MAML
from metarun.algos.gradient.maml_pp import MAMLPlusPlus
from metarun.algos.gradient.meta_curvature import MetaCurvature
from metarun.algos.gradient.meta_sgd import MetaSGD
from metarun.algos.gradient.minibatch_prox import MinibatchProx
from metarun.algos.gradient.proto_maml import ProtoMAML, make_prototype_head
from metarun.backbones.mlp import MLP
from metarun.core.errors import ConfigError
from metarun.core.objectives import classification, regression
from metarun.core.tasks import Batch, Examples
from metarun.ops.functional import call, dot, within
from metarun.settings.build import build_learner, build_source
from metarun.settings.resolve import resolve

pytestmark = pytest.mark.usefixtures("doubles")

Tensors = dict[str, Tensor]


def learner_of(cls: type[MAML], engine: str = "loop", steps: int = 2, inner_lr: float = INNER_LR, **more) -> MAML:
    own = {name: more.pop(name) for name in ("factors", "transform") if name in more}
    return cls(conv4(), 3, classification, **own, **maml_settings(inner_lr, steps, *ENGINES[engine], **more))


def jolted(learner: torch.nn.Module) -> torch.nn.Module:
    """All parameters a little off their start, so that none is special."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in learner.parameters():
            value += 0.05 * torch.randn(value.shape, generator=generator)
    return learner


def plain_gradient(
    learner: MAML, tasks: Batch, change: Callable[[Tensors, str, Tensor, int], Tensor], steps: int = 2
) -> Tensors:
    """The meta-gradient of an inner loop in which `change(theta, name, gradient, step)` is taken off each weight."""
    theta = {name: value.detach().clone().requires_grad_() for name, value in learner.named_parameters()}
    losses = []
    for i in range(tasks.n_tasks):
        phi = {name: value for name, value in theta.items() if name.startswith("net.")}
        for step in range(steps):
            loss = F.cross_entropy(plain_conv4(phi, tasks.support.x[i], "stride"), tasks.support.y[i])
            grads = torch.autograd.grad(loss, list(phi.values()), create_graph=True)
            phi = {n: phi[n] - change(theta, n, g, step) for n, g in zip(list(phi), grads, strict=True)}
        losses.append(F.cross_entropy(plain_conv4(phi, tasks.query.x[i], "stride"), tasks.query.y[i]))
    return dict(zip(theta, torch.autograd.grad(torch.stack(losses).mean(), list(theta.values())), strict=True))


@pytest.mark.parametrize("engine", quick_if(("vmap",), ENGINES))
def test_boil_meta_gradient_is_that_of_a_plain_loop_with_a_head_rate_of_zero(engine: str) -> None:
    learner, tasks = learner_of(BOIL, engine), batch()
    expected = plain_gradient(learner, tasks, lambda _, name, grad, step: grad * (0 if "head" in name else INNER_LR))
    assert furthest(meta_gradient(learner, tasks), expected) < 1e-9


@pytest.mark.parametrize("inner_lr", [INNER_LR, -INNER_LR])
@pytest.mark.parametrize("engine", quick_if(("vmap",), ENGINES))
def test_meta_sgd_meta_gradient_is_that_of_a_plain_loop_with_a_rate_for_every_weight(
    engine: str, inner_lr: float
) -> None:
    """Negative rates, which go uphill, among them: a rate also learns which way to go."""
    learner, tasks = jolted(learner_of(MetaSGD, engine, inner_lr=inner_lr)), batch()
    rate = lambda theta, name: theta["rates." + name.removeprefix("net.").replace(".", "/")]  # noqa: E731
    expected = plain_gradient(learner, tasks, lambda theta, name, grad, step: rate(theta, name) * grad)
    assert furthest(meta_gradient(learner, tasks), expected) < 1e-9


def test_meta_sgd_with_its_first_rates_is_maml() -> None:
    tasks = batch()
    expected = meta_gradient(learner_of(MAML), tasks)
    found = meta_gradient(learner_of(MetaSGD), tasks)
    assert furthest({name: found[name] for name in expected}, expected) < 1e-12


@pytest.mark.parametrize("engine", quick_if(("vmap",), ENGINES))
def test_meta_curvature_meta_gradient_is_that_of_a_loop_with_products_written_out(engine: str) -> None:
    """Axis by axis with tensordot; learn2learn's transform, permutations and views, is among the engines."""
    learner, tasks = jolted(learner_of(MetaCurvature, engine, factors="axes")), batch()

    def change(theta: Tensors, name: str, grad: Tensor, step: int) -> Tensor:
        at = "curvature." + name.removeprefix("net.").replace(".", "/")
        if grad.dim() == 1:
            return INNER_LR * theta[f"{at}/mc"] * grad
        out = torch.tensordot(theta[f"{at}/mc_in"], grad, ([1], [0]))
        out = torch.tensordot(out, theta[f"{at}/mc_out"], ([1], [0])).movedim(-1, 1)
        if grad.dim() == 4:
            out = torch.tensordot(out.flatten(2), theta[f"{at}/mc_f"], ([2], [1])).reshape(grad.shape)
        return INNER_LR * out

    assert furthest(meta_gradient(learner, tasks), plain_gradient(learner, tasks, change)) < 1e-9


@pytest.mark.parametrize("engine", quick_if(("vmap",), ENGINES))
def test_kronecker_factors_are_one_matrix_of_all_entries(engine: str) -> None:
    """The matrix written out, L'L x R'R by torch.kron, times all entries of a weight, or of each filter of a
    convolution; learn2learn's KroneckerTransform is among the engines."""
    learner, tasks = jolted(learner_of(MetaCurvature, engine, factors="kronecker")), batch()

    def change(theta: Tensors, name: str, grad: Tensor, step: int) -> Tensor:
        at = "curvature." + name.removeprefix("net.").replace(".", "/")
        whole = torch.kron(*(theta[f"{at}/{side}"].T @ theta[f"{at}/{side}"] for side in ("left", "right")))
        rows = grad.flatten(1) if grad.dim() == 4 else grad.flatten()[None]
        return INNER_LR * torch.einsum("ij,rj->ri", whole, rows).reshape(grad.shape)

    assert furthest(meta_gradient(learner, tasks), plain_gradient(learner, tasks, change)) < 1e-9


class Bent(torch.nn.Module):
    """A gradient's own transform: entry by entry, g scale + tanh(g) bend, with a number for each."""

    def __init__(self, parameter: Tensor, start: float = 0.0) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones_like(parameter))
        self.bend = torch.nn.Parameter(torch.full_like(parameter, start))

    def forward(self, grad: Tensor) -> Tensor:
        return grad * self.scale + grad.tanh() * self.bend


def bend_weights(parameter: Tensor) -> torch.nn.Module | None:
    return Bent(parameter, 0.5) if parameter.dim() > 1 else None


@pytest.mark.parametrize("engine", quick_if(("vmap", "learn2learn"), ENGINES))
def test_the_meta_gradient_through_a_module_of_ones_own_is_that_of_a_plain_loop(engine: str) -> None:
    """The module learns too; a parameter that gets none has its plain gradient. learn2learn's GBML with such modules is
    among the engines."""
    learner, tasks = jolted(learner_of(MetaCurvature, engine, factors="axes", transform=bend_weights)), batch()

    def change(theta: Tensors, name: str, grad: Tensor, step: int) -> Tensor:
        at = "transforms." + name.removeprefix("net.").replace(".", "/")
        if grad.dim() == 1:
            return INNER_LR * grad
        return INNER_LR * (grad * theta[f"{at}.scale"] + grad.tanh() * theta[f"{at}.bend"])

    found = meta_gradient(learner, tasks)
    assert furthest(found, plain_gradient(learner, tasks, change)) < 1e-9
    assert len([name for name in found if name.startswith("transforms.")]) == 2 * 5  # four convolutions and the head
    assert not learner.recordable


@pytest.mark.parametrize("engine", quick_if(("vmap", "learn2learn"), ENGINES))
def test_the_meta_gradient_through_a_module_transform_of_learn2learns_is_that_of_a_matrix_and_a_vector(
    engine: str,
) -> None:
    """Its ModuleTransform(Linear) takes all entries of a vector's gradient g to W g + b."""
    linear = learn2learn().optim.transforms.ModuleTransform(torch.nn.Linear)
    transform = lambda parameter: linear(parameter).double() if parameter.dim() == 1 else None  # noqa: E731
    learner, tasks = learner_of(MetaCurvature, engine, factors="axes", transform=transform), batch()

    def change(theta: Tensors, name: str, grad: Tensor, step: int) -> Tensor:
        at = f"transforms.{name.removeprefix('net.').replace('.', '/')}.transform"
        return INNER_LR * (theta[f"{at}.weight"] @ grad + theta[f"{at}.bias"] if grad.dim() == 1 else grad)

    assert furthest(meta_gradient(learner, tasks), plain_gradient(learner, tasks, change)) < 1e-9


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (
            lambda parameter: torch.nn.Flatten(0),
            r"Flatten for .* makes \[\d+\] of a gradient \[.*: it must keep",
        ),
        (lambda parameter: 3.0, r"gives float for .*: it must give a torch module"),
        (partial(Bent, strat=1.0), r"Bent'>, strat=1.0\) has incorrect arguments"),
        (torch.nn.Identity(), r"Identity for .* a module of its own; set algo.transform._partial_=true"),
    ],
)
def test_a_transform_that_is_none_is_told(transform: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        learner_of(MetaCurvature, factors="axes", transform=transform)


def build_bent(full: Callable[..., DictConfig], *settings: str) -> MetaCurvature:
    words = ", ".join(["_target_: test_gradient_family.Bent", *settings])
    config = full("algo=meta_curvature", "data=sinusoid", f"algo.transform={{{words}}}")
    source = build_source(resolve(config), torch.device("cpu"))
    learner = build_learner(resolve(config), source)
    assert isinstance(learner, MetaCurvature)
    return learner


def test_a_transform_is_built_for_each_parameter_from_its_settings(full: Callable[..., DictConfig]) -> None:
    learner = build_bent(full, "_partial_: true", "start: 0.25")
    assert [*learner.transforms] == [name.replace(".", "/") for name, _ in learner.net.named_parameters()]
    bends = [made.get_parameter("bend") for made in learner.transforms.values()]
    assert [bend.shape for bend in bends] == [value.shape for value in learner.net.parameters()]
    assert all(bool((bend == 0.25).all()) for bend in bends)
    assert not [*learner.curvature]


def test_a_transform_that_cannot_be_built_is_told_as_a_mistake_in_the_settings(
    full: Callable[..., DictConfig],
) -> None:
    with pytest.raises(ConfigError, match=r"MetaCurvature: .*Bent.*missing .* 'parameter'.* add _partial_: true"):
        build_bent(full)


@pytest.mark.parametrize("factors", ["axes", "kronecker"])
def test_meta_curvature_at_the_identity_is_maml(factors: str) -> None:
    tasks = batch()
    expected = meta_gradient(learner_of(MAML), tasks)
    found = meta_gradient(learner_of(MetaCurvature, factors=factors), tasks)
    assert furthest({name: found[name] for name in expected}, expected) < 1e-12


def maml_pp(engine: str = "loop", rates=False, multi_step=0, first_order_steps=0, norms=False, steps=2) -> MAMLPlusPlus:
    parts = {"multi_step": multi_step, "first_order_steps": first_order_steps}
    settings = maml_settings(INNER_LR, steps, *ENGINES[engine], **parts)
    return MAMLPlusPlus(conv4(), 3, classification, learn_rates=rates, per_step_norm=norms, **settings)


def test_maml_pp_with_every_part_off_is_maml() -> None:
    tasks = batch()
    assert furthest(meta_gradient(maml_pp(), tasks), meta_gradient(learner_of(MAML), tasks)) < 1e-12


@pytest.mark.parametrize("engine", quick_if(("vmap",), ("loop", "vmap")))
def test_maml_pp_learns_a_rate_for_every_weight_tensor_and_step(engine: str) -> None:
    learner, tasks = jolted(maml_pp(engine, rates=True)), batch()
    rate = lambda theta, name: theta["rates." + name.removeprefix("net.").replace(".", "/")]  # noqa: E731
    expected = plain_gradient(learner, tasks, lambda theta, name, grad, step: rate(theta, name)[step] * grad)
    assert furthest(meta_gradient(learner, tasks), expected) < 1e-9


@pytest.mark.parametrize("engine", quick_if(("vmap",), ("loop", "vmap")))
def test_maml_pp_counts_every_step_first_and_the_last_alone_later(engine: str) -> None:
    """With a horizon of 4 the first of two steps weighs 1/2, a quarter of the way 3/8, and at the end nothing."""
    learner, tasks = maml_pp(engine, multi_step=4), batch()
    one, two = (meta_gradient(learner_of(MAML, steps=steps), tasks) for steps in (1, 2))
    for done, weight in ((0, 1 / 2), (1, 3 / 8), (4, 0), (9, 0)):
        learner.outer_steps.number = done
        expected = {name: weight * one[name] + (1 - weight) * two[name] for name in one}
        assert furthest(meta_gradient(learner, tasks), expected) < 1e-9


def test_maml_pp_is_first_order_for_so_many_outer_steps() -> None:
    learner, tasks = maml_pp(first_order_steps=1), batch()
    second, first = learner_of(MAML), learner_of(MAML, first_order=True)
    assert furthest(meta_gradient(learner, tasks), meta_gradient(first, tasks)) < 1e-12
    learner.meta_step(tasks, {"outer": torch.optim.SGD(learner.parameters(), lr=0.0)})
    assert furthest(meta_gradient(learner, tasks), meta_gradient(second, tasks)) < 1e-12


@pytest.mark.parametrize("engine", quick_if(("vmap",), ("loop", "vmap")))
def test_maml_pp_normalises_each_step_by_weights_of_its_own(engine: str) -> None:
    learner, tasks = jolted(maml_pp(engine, norms=True)), batch()
    theta = {name: value.detach().clone().requires_grad_() for name, value in learner.named_parameters()}
    losses = []
    for i in range(tasks.n_tasks):
        phi = {name: value for name, value in theta.items() if name.startswith("net.")}
        for step in range(3):
            rows = {"net." + n[6:].replace("/", "."): v[step] for n, v in theta.items() if n.startswith("norms.")}
            if step < 2:
                loss = F.cross_entropy(plain_conv4(phi | rows, tasks.support.x[i], "stride"), tasks.support.y[i])
                grads = torch.autograd.grad(loss, list(phi.values()), create_graph=True)
                phi = {n: phi[n] - INNER_LR * g for n, g in zip(list(phi), grads, strict=True)}
        losses.append(F.cross_entropy(plain_conv4(phi | rows, tasks.query.x[i], "stride"), tasks.query.y[i]))
    expected = dict(zip(theta, torch.autograd.grad(torch.stack(losses).mean(), list(theta.values())), strict=True))
    assert furthest(meta_gradient(learner, tasks), expected) < 1e-9


@pytest.mark.parametrize("engine", quick_if(("vmap",), ("loop", "vmap")))
def test_maml_pp_goes_on_by_the_rates_and_weights_of_its_last_step_where_it_is_tested_with_more(engine: str) -> None:
    """Trained with 2 steps and tested with 5: rates of steps 0, 1, 1, 1, 1; weights of BatchNorm of steps 0, 1 and
    what follows the last one, 2, 2, 2, which the query images have too."""
    parts = {"learn_rates": True, "multi_step": 0, "first_order_steps": 0, "per_step_norm": True}
    settings = maml_settings(0.3, 2, *ENGINES[engine], test_inner_steps=5, **parts)
    learner = jolted(MAMLPlusPlus(conv4(), 3, classification, **settings))
    theta, tasks, losses = dict(learner.eval().named_parameters()), batch(), []
    assert len({tuple(theta["norms.backbone/blocks/1/weight"][row].tolist()) for row in range(3)}) == 3
    for i in range(tasks.n_tasks):
        phi = {n: value for n, value in theta.items() if n.startswith("net.")}
        for rate_of, norm_of in [(0, 0), (1, 1), (1, 2), (1, 2), (1, 2), (None, 2)]:
            norms = {"net." + n[6:].replace("/", "."): v[norm_of] for n, v in theta.items() if n.startswith("norms.")}
            if rate_of is None:
                losses.append(F.cross_entropy(plain_conv4(phi | norms, tasks.query.x[i], "stride"), tasks.query.y[i]))
                break
            loss = F.cross_entropy(plain_conv4(phi | norms, tasks.support.x[i], "stride"), tasks.support.y[i])
            grads = dict(zip(phi, torch.autograd.grad(loss, list(phi.values())), strict=True))
            rates = {n: theta["rates." + n.removeprefix("net.").replace(".", "/")][rate_of] for n in phi}
            phi = {n: (value - rates[n] * grads[n]).detach().requires_grad_() for n, value in phi.items()}
    assert torch.allclose(learner.evaluate(tasks)["loss"], torch.stack(losses), rtol=1e-9)


def test_anil_without_head_steps_is_maml_with_an_inner_rate_of_zero() -> None:
    tasks = batch()
    expected = meta_gradient(learner_of(MAML, inner_lr=0.0), tasks)
    assert furthest(meta_gradient(learner_of(ANIL, steps=0), tasks), expected) < 1e-12


def cavia(backbone: torch.nn.Module, engine: str, n_context: int, scale: bool, layer: int, on_waves: bool) -> CAVIA:
    kind = (1, regression) if on_waves else (3, classification)
    settings = maml_settings(1.0, 2, *ENGINES[engine], n_context=n_context, layer=layer, film_scale=scale)
    return CAVIA(backbone, *kind, **settings)


@pytest.mark.parametrize("engine", quick_if(("vmap",), ("loop", "vmap")))
def test_cavia_on_functions_is_a_network_with_the_context_among_its_inputs(engine: str) -> None:
    """Two layers of ReLU; the map from context to the first one is the rest of that layer's weight matrix."""
    torch.manual_seed(1)
    learner, tasks = cavia(MLP((1,), "none", (6, 5)), engine, 4, False, 1, True), waves()
    theta = {name: value.detach().clone().requires_grad_() for name, value in learner.named_parameters()}

    def error(context: Tensor, x: Tensor, y: Tensor) -> Tensor:
        first = torch.cat([theta["net.backbone.layers.0.weight"], theta["net.film.weight"]], 1)
        h = torch.relu(torch.cat([x, context.expand(len(x), 4)], 1) @ first.T + theta["net.backbone.layers.0.bias"])
        h = torch.relu(h @ theta["net.backbone.layers.3.weight"].T + theta["net.backbone.layers.3.bias"])
        return ((h @ theta["net.head.weight"].T + theta["net.head.bias"] - y) ** 2).mean()

    losses = []
    for i in range(tasks.n_tasks):
        context = torch.zeros(4, requires_grad=True)
        for _ in range(2):
            loss = error(context, tasks.support.x[i], tasks.support.y[i])
            context = context - torch.autograd.grad(loss, context, create_graph=True)[0]
        losses.append(error(context, tasks.query.x[i], tasks.query.y[i]))
    expected = dict(zip(theta, torch.autograd.grad(torch.stack(losses).mean(), list(theta.values())), strict=True))
    assert furthest(meta_gradient(learner, tasks), expected) < 1e-9


def test_cavia_on_images_agrees_between_loop_and_vmap() -> None:
    one, other = (meta_gradient(cavia(conv4(), engine, 4, True, 3, False), batch()) for engine in ("loop", "vmap"))
    assert furthest(one, other) < 1e-9
    assert one["net.film.weight"].abs().max() > 1e-6


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("scale", [False, True])
def test_cavia_without_context_is_plain_training(scale: bool) -> None:
    """Of the same network, without any inner step."""
    learner, plain, tasks = cavia(conv4(), "loop", 0, scale, 3, False), learner_of(MAML, steps=0), batch()
    plain.load_state_dict({name: value for name, value in learner.state_dict().items() if "film" not in name})
    found, expected = meta_gradient(learner, tasks), meta_gradient(plain, tasks)
    assert furthest({name: found[name] for name in expected}, expected) < 1e-12


def test_cavia_scales_and_shifts_what_enters_the_relu() -> None:
    """One channel, h = x; the map of context 2 gives a shift of 2 * 3 and a factor of 1 + 2 * 0.5 = 2."""
    backbone = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU())
    backbone.out_features = 1
    net = ContextNetwork(backbone, 1, 1, 1, True)
    values = {"backbone.0.weight": [[1.0]], "backbone.0.bias": [0.0], "head.weight": [[1.0]], "head.bias": [0.0]}
    values |= {"film.weight": [[3.0], [0.5]], "context": [2.0]}
    x = torch.tensor([[1.0], [-3.0], [-4.0]])
    assert call(net, {n: torch.tensor(v) for n, v in values.items()}, x).flatten().tolist() == [8.0, 0.0, 0.0]


def proto_maml(engine: str, steps: int) -> ProtoMAML:
    return ProtoMAML(conv4(), **maml_settings(INNER_LR, steps, *ENGINES[engine]))


def test_proto_maml_starts_as_a_classifier_by_the_nearest_prototype() -> None:
    """Softmax over minus squared distances is that over the head's logits: |f|^2, the difference, all classes share."""
    features, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 2, 1, 0])
    head = make_prototype_head(features, y, 3)
    means = torch.stack([features[y == n].mean(0) for n in range(3)])
    x = torch.randn(5, 4)
    logits = F.linear(x, head["head.weight"], head["head.bias"])
    assert torch.allclose(logits.softmax(1), (-(torch.cdist(x, means) ** 2)).softmax(1))


@pytest.mark.parametrize("engine", quick_if(("vmap",), ("loop", "vmap")))
def test_proto_maml_meta_gradient_goes_through_inner_loop_and_prototypes(engine: str) -> None:
    learner, tasks = proto_maml(engine, 2), batch()
    theta = {name: value.detach().clone().requires_grad_() for name, value in learner.named_parameters()}
    bare = {"net.head.weight": torch.eye(6), "net.head.bias": torch.zeros(6)}  # logits that are the features
    losses = []
    for i in range(tasks.n_tasks):
        features = plain_conv4(theta | bare, tasks.support.x[i], "stride")
        means = torch.stack([features[tasks.support.y[i] == n].mean(0) for n in range(3)])
        phi = {name: value.clone() for name, value in theta.items()}  # other variables than the means come from
        phi |= {"net.head.weight": 2 * means, "net.head.bias": -(means**2).sum(1)}
        for _ in range(2):
            loss = F.cross_entropy(plain_conv4(phi, tasks.support.x[i], "stride"), tasks.support.y[i])
            grads = torch.autograd.grad(loss, list(phi.values()), create_graph=True)
            phi = {n: phi[n] - INNER_LR * g for n, g in zip(list(phi), grads, strict=True)}
        losses.append(F.cross_entropy(plain_conv4(phi, tasks.query.x[i], "stride"), tasks.query.y[i]))
    expected = dict(zip(theta, torch.autograd.grad(torch.stack(losses).mean(), list(theta.values())), strict=True))
    assert furthest(meta_gradient(learner, tasks), expected) < 1e-9


class Smooth(torch.nn.Sequential):
    """A backbone without kinks, so that minima move smoothly."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        super().__init__(torch.nn.Linear(1, 6), torch.nn.Tanh(), torch.nn.Linear(6, 4), torch.nn.Tanh())
        self.out_features = 4


def imaml(engine: str, lam: float, inner_lr: float, steps: int, cg_steps: int, **more: str) -> IMAML:
    settings = inner_settings(inner_lr, steps, *ENGINES[engine], report_steps=[], lam=lam, cg_steps=cg_steps)
    return IMAML(Smooth(), 1, regression, **settings, **more)


@pytest.mark.parametrize("engine", quick_if(("vmap",), ("loop", "vmap")))
def test_imaml_meta_gradient_is_that_of_a_long_unrolled_inner_loop(engine: str) -> None:
    """250 steps on the support loss held near theta, differentiated through every one of them."""
    lam, inner_lr, tasks = 5.0, 0.03, waves(2)
    learner = imaml(engine, lam, inner_lr, 250, 40)
    theta = {name: value.detach().clone().requires_grad_() for name, value in learner.named_parameters()}

    def error(p: Tensors, x: Tensor, y: Tensor) -> Tensor:
        return ((call(learner.net, within(p, "net"), x) - y) ** 2).mean()

    losses = []
    for i in range(tasks.n_tasks):
        phi = dict(theta)
        for _ in range(250):
            held = sum(((phi[n] - theta[n]) ** 2).sum() for n in theta)
            loss = error(phi, tasks.support.x[i], tasks.support.y[i]) + lam / 2 * held
            grads = torch.autograd.grad(loss, list(phi.values()), create_graph=True)
            phi = {n: phi[n] - inner_lr * g for n, g in zip(theta, grads, strict=True)}
        losses.append(error(phi, tasks.query.x[i], tasks.query.y[i]))
    expected = dict(zip(theta, torch.autograd.grad(torch.stack(losses).mean(), list(theta.values())), strict=True))
    assert furthest(meta_gradient(learner, tasks), expected) < 1e-6
    assert furthest(meta_gradient(imaml(engine, lam, inner_lr, 250, 1), tasks), expected) > 1e-3


def test_imaml_held_very_strongly_stays_at_theta_and_trains_plainly() -> None:
    learner, tasks = imaml("loop", 1e9, 1e-9, 3, 5), waves()
    state = learner.adapt(dict(learner.named_parameters()), Examples(tasks.support.x[0], tasks.support.y[0]), 0)
    assert furthest(state.phi, dict(learner.net.state_dict())) < 1e-6
    query = torch.stack([F.mse_loss(learner.net(x), y) for x, y in zip(*tasks.query, strict=True)]).mean()
    plain = dict(zip(state.phi, torch.autograd.grad(query, list(learner.parameters())), strict=True))
    assert furthest(within(meta_gradient(learner, tasks), "net"), plain) < 1e-6


DENSE = [("hessian", 4.0), ("gauss_newton", 0.0), ("gauss_newton", 0.3)]


@pytest.mark.parametrize("engine", quick_if(("vmap",), ("loop", "vmap")))
@pytest.mark.parametrize(("curvature", "damping"), DENSE)
def test_imaml_solves_the_system_of_its_curvature_and_damping(curvature: str, damping: float, engine: str) -> None:
    """(I + C / (lam + damping)) x = query gradient at phi, with C written out, three steps from theta."""
    (support, query, *_), lam = waves(2), 0.2
    labels = [(side.y[..., 0] > 0).long() + (side.x[..., 0] > 0).long() for side in (support, query)]
    tasks = Batch(Examples(support.x, labels[0]), Examples(query.x, labels[1]), 3)
    more = {"report_steps": [], "lam": lam, "cg_steps": 60, "curvature": curvature, "cg_damping": damping}
    learner = IMAML(Smooth(), 3, classification, **inner_settings(0.1, 3, *ENGINES[engine], **more))

    def logits(flat: Tensor, x: Tensor) -> Tensor:
        phi = dict(zip(shapes, flat.split([s.numel() for s in shapes.values()]), strict=True))
        return call(learner.net, {n: phi[n].view(s) for n, s in shapes.items()}, x)

    def loss(flat: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits(flat, x), y)

    shapes = {n: value.shape for n, value in learner.net.named_parameters()}
    found, lowest = [], 0.0
    for x, y, query_x, query_y in zip(*tasks.support, *tasks.query, strict=True):
        phi = learner.adapt(dict(learner.named_parameters()), Examples(x, y), 3).phi
        at = torch.cat([phi[n].flatten() for n in shapes])
        bend = torch.func.hessian(loss)(at, x, y)
        lowest = min(lowest, float(torch.linalg.eigvalsh(bend)[0]))
        if curvature == "gauss_newton":
            ahead, p = torch.func.jacrev(logits)(at, x), logits(at, x).softmax(1)
            middle = (torch.diag_embed(p) - p[:, :, None] * p[:, None]) / len(x)  # of mean cross-entropy by logits
            bend = torch.einsum("rip,rij,rjq->pq", ahead, middle, ahead)
        matrix = torch.eye(len(at)) + bend / (lam + damping)
        found.append(torch.linalg.solve(matrix, torch.func.grad(loss)(at, query_x, query_y)))
    assert lowest < 0  # the Hessian is not what makes these systems positive definite
    expected = dict(zip(shapes, torch.stack(found).mean(0).split([s.numel() for s in shapes.values()]), strict=True))
    meta = {n: value.flatten() for n, value in within(meta_gradient(learner, tasks), "net").items()}
    assert furthest(meta, expected) < 1e-6


def test_a_curvature_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match=r"algo.curvature=fisher is not one of hessian, gauss_newton"):
        imaml("loop", 2.0, 0.1, 3, 5, curvature="fisher")


def test_conjugate_gradient_solves_a_system_in_as_many_steps_as_it_has_unknowns() -> None:
    root, b = torch.randn(4, 4), torch.randn(4)
    matrix = root @ root.T + torch.eye(4)
    found = solve_by_conjugate_gradient(lambda v: {"a": matrix @ v["a"]}, {"a": b}, 4)
    assert torch.allclose(found["a"], torch.linalg.solve(matrix, b))
    again = solve_by_conjugate_gradient(lambda v: {"a": matrix @ v["a"]}, {"a": b}, 9)
    assert torch.allclose(again["a"], found["a"])


def prox(engine: str, lam: float, inner_lr: float, steps: int) -> MinibatchProx:
    sizes = {"inner_batch_size": 99, "test_inner_batch_size": 99, "inner_beta2": 0.9}
    return MinibatchProx(Smooth(), 1, regression, lam=lam, **inner_settings(inner_lr, steps, *ENGINES[engine], **sizes))


@pytest.mark.parametrize("engine", quick_if(("vmap",), ("loop", "vmap")))
def test_minibatch_prox_descends_the_minimum_of_the_held_support_loss(engine: str) -> None:
    """Of m(theta) = min over phi of L(phi) + lam / 2 |phi - theta|^2 by central differences along a direction."""
    learner, tasks, lam = prox(engine, 5.0, 0.03, 300), waves(2), 5.0
    found = meta_gradient(learner, tasks)
    along = {name: torch.randn(value.shape) for name, value in found.items()}

    def minimum(at: float) -> Tensor:
        total = torch.tensor(0.0)
        theta = {n: value.detach() + at * along[n] for n, value in learner.named_parameters()}
        for x, y in zip(*tasks.support, strict=True):
            phi = learner.adapt(theta, Examples(x, y), 0).phi
            held = sum(((phi[n] - value) ** 2).sum() for n, value in within(theta, "net").items())
            total += (F.mse_loss(call(learner.net, phi, x), y) + lam / 2 * held) / tasks.n_tasks
        return total

    slope = (minimum(1e-5) - minimum(-1e-5)) / 2e-5
    assert torch.allclose(slope, dot(found, along), rtol=1e-5)


@pytest.mark.parametrize("build", [lambda: imaml("loop", 2.0, 1.0, 3, 5), lambda: prox("loop", 2.0, 1.0, 3)])
def test_a_pull_that_would_run_away_is_refused(build: Callable[[], MAML]) -> None:
    with pytest.raises(ValueError, match=r"algo.inner_lr=1.0 with algo.lam=2.0 runs away .* below 2 / lam = 1"):
        build()


def test_inner_optimizers_step_as_torch_does() -> None:
    """torch.optim's SGD, SGD with momentum and Adam with a first moment of nothing, five steps on a quartic."""
    start = {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor(0.5)}
    for rule, build in {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.01),
        "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
        "adam": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.0, 0.999)),
    }.items():
        inner = InnerOptimizer(rule)
        theirs = {name: value.clone().requires_grad_() for name, value in start.items()}
        optim, phi, memory = build(list(theirs.values())), start, inner.start(start)
        for step in range(5):
            optim.zero_grad()
            sum((value**4).sum() for value in theirs.values()).backward()
            optim.step()
            phi, memory = inner.step(phi, {n: 4 * v**3 for n, v in phi.items()}, memory, step, lambda _: 0.01)
        assert all(torch.allclose(phi[name], theirs[name], atol=1e-9) for name in start), rule


def test_a_long_gradient_is_shortened_and_a_short_one_is_not() -> None:
    """(3, 4) is 5 long: shortened to 1 it is (0.6, 0.8)."""
    grads = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}
    short = clip_gradient(grads, 1.0)
    assert [short["a"].item(), short["b"].item()] == pytest.approx([0.6, 0.8])
    assert clip_gradient(grads, 6.0) == grads


@pytest.mark.parametrize("rule", ["momentum", "adam"])
def test_inner_optimizers_agree_between_loop_and_vmap(rule: str) -> None:
    more = {"inner_optimizer": rule, "inner_clip_norm": 0.5, "inner_lr": 0.01}
    one, other = (meta_gradient(learner_of(MAML, engine, 3, **more), batch()) for engine in ("loop", "vmap"))
    assert furthest(one, other) < 1e-9
    assert furthest(one, meta_gradient(learner_of(MAML, "loop", 3, inner_lr=0.01), batch())) > 1e-3


def test_learn2learn_refuses_other_inner_optimizers() -> None:
    with pytest.raises(ValueError, match=r"algo.inner_optimizer and algo.inner_clip_norm need algo.engine=vectorized"):
        learner_of(MAML, "learn2learn", inner_optimizer="adam")


def test_a_change_of_maml_is_not_run_as_maml_by_learn2learn() -> None:
    """What learn2learn does instead of `adapt` and `predict` is declared by the method's own class."""

    class Slower(MAML):
        def rate(self, params: Tensors, step: int, name: str) -> float:
            return self.inner.lr / (step + 1)

    with pytest.raises(ValueError, match=r"Slower has no learn2learn engine; set algo.engine=vectorized"):
        learner_of(Slower, "learn2learn")


def test_fomaml_is_maml_of_first_order(settings: Callable[..., DictConfig]) -> None:
    learners = []
    for words in (["algo=fomaml"], ["algo=maml", "algo.first_order=true"], ["algo=maml"]):
        config = resolve(settings(*words, "algo.inner_steps=2"))
        source = build_source(config, torch.device("cpu"))
        learners.append(build_learner(config, source))
    found, expected, second = (meta_gradient(learner, next(source.episodes("train", 0, 2))) for learner in learners)
    assert furthest(found, expected) == 0
    assert furthest(found, second) > 1e-3


@pytest.mark.parametrize("bends", [[-1.0, -1.0], [1.0, -1.0]])
def test_conjugate_gradient_does_not_follow_a_direction_that_bends_downwards(bends: list[float]) -> None:
    """b = (1, 2) has b'Ab = -5 or 1 - 4 = -3 in it, so nothing is done: to solve A x = b would go to a saddle."""
    bend, b = torch.tensor(bends), {"a": torch.tensor([1.0, 2.0])}
    assert solve_by_conjugate_gradient(lambda v: {"a": bend * v["a"]}, b, 3)["a"].tolist() == [0.0, 0.0]


def test_conjugate_gradient_solves_a_positive_system_of_two_in_two_steps() -> None:
    """diag(2, 4) x = (1, 2)."""
    bend, b = torch.tensor([2.0, 4.0]), {"a": torch.tensor([1.0, 2.0])}
    found = solve_by_conjugate_gradient(lambda v: {"a": bend * v["a"]}, b, 2)["a"]
    assert torch.allclose(found, torch.tensor([0.5, 0.5]))


def engines_of(algo: str) -> list[str]:
    cls = get_object(choices("algo")[algo]["_target_"])
    return ["vectorized", "learn2learn"] if "learn2learn" in vars(cls) else ["vectorized"]


TWICE = [  # settings that have one value in training, and `test_` and their name for validation and test
    (algo, setting, engine)
    for algo, values in choices("algo").items()
    for setting in values
    if f"test_{setting}" in values and "classification" in get_object(values["_target_"]).kinds
    if algo not in ("oml", "anml")  # which are trained on streams: see test_settings_matter.py
    for engine in engines_of(algo)
]
OF_ITS_OWN = ("maml", "reptile", "imaml", "maml_pp", "cavia", "lstm_learner")  # in their loops; the others are slow
IN_TEST_ALONE = [
    algo for algo, values in choices("algo").items() if "test_inner_steps" in values and "inner_steps" not in values
]


@pytest.mark.parametrize(("algo", "setting", "engine"), quick_if([one for one in TWICE if one[0] in OF_ITS_OWN], TWICE))
def test_training_and_test_go_each_by_their_own_value_of_a_setting(
    settings: Callable[..., DictConfig], algo: str, setting: str, engine: str
) -> None:
    """Of 1 and 3, with weights drawn from the same seed: trained with 1 and tested with 3 a learner tests like one of
    3 and 3 and trains like one of 1 and 1."""
    few = [key for key in FEWER_STEPS[algo] if setting not in key]
    config = settings(f"algo={algo}", f"algo.engine={engine}", "data.k_shot=2", "data.train.k_shot=2", *few)
    source = build_source(resolve(config), torch.device("cpu"))
    training, testing = (next(source.episodes(split, 0, 2)) for split in ("train", "val"))

    def losses(train: int, test: int) -> tuple[Tensor, Tensor]:
        config.algo.update({setting: train, f"test_{setting}": test})
        learner = build_learner(resolve(config), source)
        torch.manual_seed(0)
        return learner.train().meta_gradient(training)["loss"], learner.eval().evaluate(testing)["loss"]

    found, low, high = losses(1, 3), losses(1, 1), losses(3, 3)
    assert torch.equal(found[0], low[0])
    assert torch.equal(found[1], high[1])
    assert not torch.equal(low[0], high[0])
    assert not torch.equal(low[1], high[1])


@pytest.mark.parametrize("algo", IN_TEST_ALONE)
def test_a_method_that_adapts_in_test_alone_takes_the_steps_it_is_told(
    settings: Callable[..., DictConfig], algo: str
) -> None:
    config = settings(f"algo={algo}")
    source = build_source(resolve(config), torch.device("cpu"))
    losses = []
    for steps in (1, 3):
        config.algo.test_inner_steps = steps
        losses.append(
            build_learner(resolve(config), source).eval().evaluate(next(source.episodes("val", 0, 2)))["loss"]
        )
    assert not torch.equal(*losses)
