"""Domain-adversarial training in float64, and what it learns from: two moons, two sources, images on photographs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TEST, TRAIN, noise_tasks
from omegaconf import DictConfig
from test_contract import parts_of
from torch import Tensor, nn

from metarun.algos.transfer.boundary import PLACES, POINTS, draw_boundary
from metarun.algos.transfer.dann import DANN, reverse_gradient
from metarun.backbones.mlp import MLP
from metarun.core.tasks import EpisodePlan, EpisodeShape, Examples, Pairs
from metarun.data.domains import Domains
from metarun.data.images import ImageClasses, ImageTasks
from metarun.data.moons import MIDDLE, Moons
from metarun.data.photographed import Photographed
from metarun.data.resize import resize
from metarun.run.drawn import count_drawn
from metarun.run.evaluation import evaluate
from metarun.run.few_tasks import FewTasks
from metarun.run.interrupt import StopRequest

pytestmark = pytest.mark.usefixtures("doubles")

AS_ALWAYS = ["algo.width=64", "optim=sgd", "optim.lr=0.1", "optim.momentum=0.9", "backbone.widths=[40,40]"]
PLAN = EpisodePlan(EpisodeShape(0, 3, 4), EpisodeShape(0, 5, 6), 0, 0)


def dann(weight: float = 0.7, **changed: object) -> DANN:
    torch.manual_seed(3)
    own = {"rise_steps": 0, "width": 4, "layers": 1, "tests": "means", "engine": "auto", "task_chunk": 0} | changed
    return DANN(MLP((2,), "none", [6, 5]), 2, weight, **own)  # type: ignore[arg-type]


def moons(plan: EpisodePlan = PLAN, **changed: float) -> Moons:
    return Moons(plan, torch.device("cpu"), **({"points": 40, "noise": 0.1, "angle": 35.0} | changed))  # type: ignore[arg-type]


def drawn(n: int = 8) -> Pairs:
    return next(moons().pairs("train", 0, n))


def plain_losses(of: DANN, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """The two terms of equation 9, written out."""

    def features(x: Tensor) -> Tensor:
        for layer in (of.backbone.layers[0], of.backbone.layers[3]):
            x = torch.relu(x @ layer.weight.T + layer.bias)
        return x

    def of_source(x: Tensor) -> Tensor:
        first, last = of.domain[0], of.domain[2]
        hidden = torch.relu(x @ first.weight.T + first.bias)
        return 1 / (1 + torch.exp(-(hidden @ last.weight[0] + last.bias)))

    source, target = features(pairs.source.x), features(pairs.target)
    logits = source @ of.classifier.weight.T + of.classifier.bias
    right = logits.gather(1, pairs.source.y[:, None])[:, 0] - logits.logsumexp(1)
    return -right.mean(), -of_source(source).log().mean() - (1 - of_source(target)).log().mean()


def test_a_reversed_gradient_is_minus_the_factor_times_the_plain_one() -> None:
    x = torch.randn(5, requires_grad=True)
    seen = reverse_gradient(x, 0.3)
    assert torch.equal(seen, x)
    (found,) = torch.autograd.grad((seen**3).sum(), x)
    assert torch.allclose(found, -0.3 * 3 * x**2, rtol=1e-14)


def test_features_descend_the_class_loss_and_climb_the_domain_loss_which_its_classifier_descends() -> None:
    of, pairs = dann(weight=0.7), drawn()
    loss, metrics = of.meta_loss(pairs)
    classes, domains = plain_losses(of, pairs)
    assert torch.allclose(loss, classes + domains, rtol=1e-12)
    assert torch.allclose(metrics["domain_loss"], domains, rtol=1e-12)
    loss.backward()
    for module, expected in ((of.backbone, classes - 0.7 * domains), (of.classifier, classes), (of.domain, domains)):
        gradients = torch.autograd.grad(expected, list(module.parameters()), retain_graph=True)
        for parameter, gradient in zip(module.parameters(), gradients, strict=True):
            assert torch.allclose(parameter.grad, gradient, rtol=1e-9, atol=1e-14)


def test_without_weight_it_is_training_on_the_source_bit_for_bit_whatever_the_domain_classifier() -> None:
    """Three steps of Adam, on the pairs and on their labelled halves alone."""
    ends = []
    for layers in (0, 2):
        of = dann(weight=0.0, layers=layers)
        alone = copy.deepcopy(nn.ModuleDict({"backbone": of.backbone, "classifier": of.classifier}))
        optims = torch.optim.Adam(of.parameters(), 0.05), torch.optim.Adam(alone.parameters(), 0.05)
        for pairs in islice(moons().pairs("train", 0, 8), 3):
            of.meta_step(pairs, {"outer": optims[0]})
            optims[1].zero_grad()
            F.cross_entropy(alone["classifier"](alone["backbone"](pairs.source.x)), pairs.source.y).backward()
            optims[1].step()
        learned = of.state_dict()
        assert all(torch.equal(value, learned[name]) for name, value in alone.state_dict().items())
        ends.append(alone.state_dict())
    start = nn.ModuleDict({"backbone": dann().backbone, "classifier": dann().classifier}).state_dict()
    assert not any(torch.equal(ends[0][name], value) for name, value in start.items())


def test_the_domain_accuracy_is_the_mean_share_of_either_domain_that_its_classifier_tells() -> None:
    """One that calls everything the source is right on all of the source and on nothing of the target."""
    of, pairs = dann(), drawn()
    last = of.domain[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.zero_()
        for bias, weight in ((3.0, 0.0), (-3.0, 0.0)):
            last.bias.fill_(bias)
            last.weight.fill_(weight)
            assert of.meta_loss(pairs)[1]["domain_accuracy"] == 0.5
        of.domain = nn.Linear(5, 1)
        source, target = of.embed(pairs.source.x), of.embed(pairs.target)
        middle = (source.mean(0) + target.mean(0)) / 2
        of.domain.weight.copy_((source.mean(0) - target.mean(0))[None])
        of.domain.bias.copy_(-of.domain.weight[0] @ middle[:, None])
        told = (of.domain(source)[:, 0] > 0).double().mean(), (of.domain(target)[:, 0] <= 0).double().mean()
        assert told[0] != 1 - told[1]
        assert of.meta_loss(pairs)[1]["domain_accuracy"] == pytest.approx(float(sum(told)) / 2)


def test_the_weight_rises_with_the_outer_steps_and_goes_on_where_a_checkpoint_left_it() -> None:
    """0, then 2 / (1 + exp(-10 p)) - 1 of 0.5 at p = 1/4, 1/2, 3/4, 1, and no more."""
    of = dann(weight=0.5, rise_steps=4)
    optims = {"outer": torch.optim.SGD(of.parameters(), 0.0)}
    found = []
    for _ in range(6):
        found.append(of.find_weight())
        of.meta_step(drawn(), optims)
    expected = [0.5 * (2 / (1 + math.exp(-10 * p)) - 1) for p in (0, 0.25, 0.5, 0.75, 1, 1)]
    assert found == pytest.approx(expected, rel=1e-14)
    assert found[0] == 0
    again = dann(weight=0.5, rise_steps=4)
    again.load_state_dict(of.state_dict())
    assert again.find_weight() == found[-1]
    assert dann(weight=0.5).find_weight() == 0.5


def test_a_query_is_of_the_nearest_mean_or_of_what_the_classifier_says() -> None:
    batch = moons().batch("test", np.arange(3))
    means, classifier = dann().eval(), dann(tests="classifier").eval()
    x, y = batch.query.x[0], batch.query.y[0]
    support = Examples(batch.support.x[0], batch.support.y[0])
    features = F.normalize(means.backbone(support.x), dim=-1)
    centres = torch.stack([features[support.y == label].mean(0) for label in (0, 1)])
    near = -(F.normalize(means.backbone(x), dim=-1)[:, None] - centres).square().sum(-1)
    assert torch.allclose(means.adapt_to(support, 2)(x), near, atol=1e-12)
    assert torch.allclose(classifier.adapt_to(support, 2)(x), classifier.classifier(classifier.backbone(x)), atol=1e-12)
    assert means.evaluate(batch)["accuracy"][0].item() == (near.argmax(-1) == y).double().mean().item()


def distances(x: Tensor, y: Tensor, turned_by: float) -> Tensor:
    """How far each point [R, 2] lies from the half circle of its class, after it is turned back."""
    angle = math.radians(-turned_by)
    back = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    x = (x - torch.from_numpy(MIDDLE)) @ back.T + torch.from_numpy(MIDDLE)
    centre = torch.tensor([[0.0, 0.0], [1.0, 0.5]])[y]
    below = torch.where(y == 0, -x[:, 1], x[:, 1] - 0.5).clamp_min(0)  # of the upper half, above the lower one
    return ((x - centre).norm(dim=1) - 1).abs() + below


def test_moons_are_half_circles_and_those_of_the_target_are_turned() -> None:
    source = moons(noise=0.0)
    test, val = source.batch("test", np.arange(4)), source.batch("val", np.arange(4))
    for side, angle in ((test.support, 0), (val.support, 0), (val.query, 0), (test.query, 35)):
        x, y = side.x.flatten(0, 1), side.y.flatten()
        assert distances(x, y, angle).max() < 1e-12
        assert distances(x, y, 35 - angle).max() > 0.3
        assert (y == 0).sum() == (y == 1).sum() == len(y) // 2
    noisy = moons(noise=0.2).batch("val", np.arange(200)).query
    assert distances(noisy.x.flatten(0, 1), noisy.y.flatten(), 0).mean() > 0.1
    assert test.support.x.shape == (4, 10, 2)
    assert torch.equal(next(source.episodes("test", 2, 1)).query.x, test.query.x[2:3])
    assert source.fingerprint("val", 3) != source.fingerprint("test", 3)


def test_training_points_of_both_domains_come_once_before_any_comes_again_and_the_targets_have_no_labels() -> None:
    source = moons(noise=0.0)
    first, again = islice(source.pairs("train", 0, 40), 2)
    assert distances(*first.source, 0).max() < 1e-12
    assert isinstance(first.target, Tensor)
    one, two = (sorted(map(tuple, pairs.target.tolist())) for pairs in (first, again))
    assert one == two
    assert len(set(one)) == 40
    assert not torch.equal(first.target, again.target)  # in another order
    half = next(source.pairs("train", 40, 20))
    assert torch.equal(half.target, again.target[:20])
    assert torch.equal(next(source.examples("train", 40, 20)).x, half.source.x)
    assert not torch.equal(moons(EpisodePlan(PLAN.train, PLAN.test, 1, 0)).batch("train", np.arange(1)).support.x,
                           source.batch("train", np.arange(1)).support.x)  # fmt: skip


def two_sources(**changed: object) -> tuple[Domains, dict[str, ImageTasks]]:
    opened = {"one": noise_tasks(TRAIN, TEST), "other": noise_tasks(TRAIN, TEST, seed=1)}
    own = {"source": "one", "target": "other", "image_size": 14, "channels": 3, "validate_on": "source"} | changed
    return Domains(EpisodePlan(TRAIN, TEST, 0, 0), opened.__getitem__, **own), opened  # type: ignore[arg-type]


def test_a_domain_of_images_trains_by_labels_of_the_source_and_tests_on_the_target() -> None:
    domains, opened = two_sources()
    pairs = next(domains.pairs("train", 0, 6))
    whole = {name: next(source.examples("train", 0, 6)) for name, source in opened.items()}
    assert torch.equal(pairs.source.y, whole["one"].y)
    assert pairs.target.shape == pairs.source.x.shape == (6, 3, 14, 14)
    assert torch.equal(pairs.target, resize(whole["other"].x[None], (3, 14, 14))[0])
    assert torch.equal(pairs.source.x, resize(whole["one"].x[None], (3, 14, 14))[0])
    assert torch.equal(next(domains.examples("train", 0, 6)).x, pairs.source.x)
    for split, name in (("train", "one"), ("val", "one"), ("test", "other")):
        assert torch.equal(
            next(domains.episodes(split, 3, 2)).query.y, next(opened[name].episodes(split, 3, 2)).query.y
        )
        assert domains.fingerprint(split, 3) == opened[name].fingerprint(split, 3)
        assert domains.labels(split, 0) == opened[name].labels(split, 0)
    assert two_sources(validate_on="target")[0].fingerprint("val", 3) == opened["other"].fingerprint("val", 3)
    assert domains.info.input_shape == (3, 14, 14)
    assert domains.info.train_classes == opened["one"].info.train_classes


def test_what_is_known_of_tasks_of_a_domain_comes_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    domains, opened = two_sources()
    monkeypatch.setattr(
        opened["other"], "describe_tasks", lambda split, drawn: {"classes": torch.from_numpy(drawn.classes)}
    )
    known = next(domains.episodes("test", 0, 3)).side["classes"]
    assert torch.equal(known, next(opened["other"].episodes("test", 0, 3)).side["classes"])
    assert not next(domains.episodes("train", 0, 3)).side


def test_a_domain_is_opened_with_its_own_settings() -> None:
    asked: list[tuple[str, object]] = []

    def open_source(name: str, values: object = None) -> ImageTasks:
        asked.append((name, values))
        return noise_tasks(TRAIN, TEST)

    own = {"image_size": 14, "channels": 1, "validate_on": "source", "members": {"other": {"rotation": "none"}}}
    Domains(EpisodePlan(TRAIN, TEST, 0, 0), open_source, "one", "other", **own)  # type: ignore[arg-type]
    assert asked == [("one", None), ("other", {"rotation": "none"})]
    with pytest.raises(ValueError, match=r"settings for third, which is not in data.source and data.target"):
        Domains(EpisodePlan(TRAIN, TEST, 0, 0), open_source, "one", "other", **own | {"members": {"third": {}}})  # type: ignore[arg-type]


def test_domains_that_share_classes_across_splits_or_have_no_images_are_refused() -> None:
    def other_way(name: str) -> object:
        source = noise_tasks(TRAIN, TEST)
        if name == "other":
            source.classes = {"train": source.classes["test"], "val": set(), "test": source.classes["train"]}
        return object() if name == "nothing" else source

    plan, own = EpisodePlan(TRAIN, TEST, 0, 0), {"image_size": 14, "channels": 1, "validate_on": "source"}
    with pytest.raises(ValueError, match=r"choose other splits of data.source and data.target"):
        Domains(plan, other_way, "one", "other", **own)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"data.target=nothing is not a source of images"):
        Domains(plan, other_way, "one", "nothing", **own)  # type: ignore[arg-type]


def flat_images(levels: list[int], side: int, channels: int) -> ImageTasks:
    """Classes of four images of one shade each, six classes in all; with several channels, of ever brighter rows."""
    pixels = torch.tensor(levels, dtype=torch.uint8).repeat_interleave(4)[:, None, None, None]
    pixels = pixels.repeat(1, channels, side, side)
    if channels > 1:
        pixels += torch.arange(side, dtype=torch.uint8)[:, None] * 7 + torch.arange(side, dtype=torch.uint8)
    names = [f"c{i}" for i in range(6)]
    split = {"train": names[:2], "val": names[2:4], "test": names[4:]}
    shape = EpisodeShape(2, 1, 1)
    data = ImageClasses(pixels, np.arange(7, dtype=np.int64) * 4, names)
    return ImageTasks(data, split, EpisodePlan(shape, shape, 0, 0), "none", torch.device("cpu"))


def test_ink_makes_a_negative_of_the_photograph_behind_it_and_paper_leaves_it() -> None:
    """Of a photograph pixel (row r, column q) is shade + 7 r + q, so its first pixel says which piece was cut."""
    figures, photos = flat_images([0, 255] * 3, 5, 1), flat_images([10, 20, 90, 100, 170, 180], 8, 3)
    shape = EpisodeShape(2, 1, 1)

    def made(seed: int, images: str = "figures", behind: str = "photos") -> Tensor:
        plan, opened = EpisodePlan(shape, shape, 0, 0), {"figures": figures, "photos": photos}
        device = torch.device("cpu")
        return Photographed(plan, device, lambda name, plan: opened[name], images, behind, seed, "none").pixels.long()

    pixels = made(0)
    rows = torch.arange(5)
    piece = rows[:, None] * 7 + rows
    corners = set()
    for number, image in enumerate(pixels):
        photo = image if number // 4 % 2 == 0 else 255 - image
        assert torch.equal(photo, photo[:1, :1, :1] + piece.expand(3, 5, 5))
        shades = [(10, 20), (90, 100), (170, 180)][number // 8]  # of photographs of the same split
        found = [(s, (int(photo[0, 0, 0]) - s)) for s in shades if 0 <= int(photo[0, 0, 0]) - s <= 24]
        assert found
        corners |= {place for _, place in found}
    assert len(corners) > 8
    assert torch.equal(made(0), pixels)
    assert not torch.equal(made(1), pixels)
    with pytest.raises(ValueError, match=r"has images of 5 pixels, and those of data.images=photos have 8"):
        made(0, "photos", "figures")


def test_the_picture_shows_the_class_of_each_place_and_the_points() -> None:
    """Class 1 is right of 0; a ring at (-1, 0) and a dot at (1, 1)."""
    points = (torch.tensor([[-1.0, 0.0]]), torch.tensor([0])), (torch.tensor([[1.0, 1.0]]), torch.tensor([1]))
    picture = draw_boundary(lambda x: torch.stack([-x[:, 0], x[:, 0]], 1), points)
    height = picture.size[1]
    assert height == round(480 * 1.6 / 2.6)
    assert picture.getpixel((200, 5)) == PLACES[0]
    assert picture.getpixel((280, height - 5)) == PLACES[1]
    scale = 480 / 2.6
    assert picture.getpixel((round(2.3 * scale), round(0.3 * scale))) == POINTS[1]
    assert picture.getpixel((round(0.3 * scale), round(1.3 * scale))) == PLACES[0]  # the middle of a ring
    learner = dann().eval()
    assert learner.draw(moons().batch("test", np.arange(1)))["boundary"].size[0] == 480
    shape = EpisodeShape(2, 1, 1)
    images = DANN(MLP((1, 28, 28), "none", [4]), 2, 1.0, 0, 4, 0, "means", "auto", 0)
    assert images.draw(noise_tasks(shape, shape).batch("test", np.arange(1))) == {}


def test_pairs_may_be_few_and_are_counted_with_both_halves() -> None:
    few = FewTasks(moons(), 16)
    steps = list(islice(few.pairs("train", 0, 8), 3))
    assert torch.equal(steps[0].target, steps[2].target)
    assert not torch.equal(steps[0].target, steps[1].target)
    assert count_drawn(steps[0]) == (16, 0)


@pytest.mark.slow
def test_on_two_moons_it_is_better_than_training_on_the_source_alone_with_each_of_three_seeds(
    settings: Callable[..., DictConfig],
) -> None:
    """On 20 test tasks of 200 points of the turned moons; results/bars.json has six seeds, trained for longer."""
    gains = []
    for seed in range(3):
        found = []
        for weight in (0.0, 1.0):
            words = [f"algo.weight={weight}", f"seed={seed}", "run.steps=400", *AS_ALWAYS]
            parts = parts_of(settings("algo=dann", "data=moons", "data.n_query=100", *words))
            stream = parts.learner.train().train_stream(parts.source, 0, 300)
            for _ in range(400):
                parts.learner.meta_step(next(stream), parts.optims)
                parts.schedules[0].step()
            found.append(evaluate(parts.learner, parts.source, "test", 20, 20, StopRequest())["accuracy"].mean())
        gains.append(found[1] - found[0])
    assert min(gains) > 0.05, gains
