"""What the methods that pretrain on single images do, in float64: the training stage, and what each fits to a task."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import as_drawn, noise_tasks
from omegaconf import DictConfig
from test_gradients import batch, conv4, furthest
from test_metric import Identity, logits
from torch import nn

from metarun.algos.base.pretraining import FitSettings, Pretraining
from metarun.algos.transfer.baseline import Baseline
from metarun.algos.transfer.baseline_pp import BaselinePP, CosineHead
from metarun.algos.transfer.finetune import FineTune
from metarun.algos.transfer.meta_baseline import MetaBaseline
from metarun.algos.transfer.simpleshot import SimpleShot
from metarun.core.errors import ConfigError
from metarun.core.tasks import Batch, Examples
from metarun.ops.functional import call, within
from metarun.settings.build import build_learner, build_source
from metarun.settings.resolve import resolve

pytestmark = pytest.mark.usefixtures("doubles")

LR, STEPS, DECAY = 0.1, 7, 0.01


def fit_settings(chunk: int) -> FitSettings:
    return FitSettings(inner_lr=LR, test_inner_steps=STEPS, inner_weight_decay=DECAY, engine="auto", task_chunk=chunk)


LEARNERS = {
    "simpleshot": lambda backbone, chunk: SimpleShot(backbone, 12, "cl2n", "auto", chunk),
    "baseline": lambda backbone, chunk: Baseline(backbone, 12, **fit_settings(chunk)),
    "baseline_pp": lambda backbone, chunk: BaselinePP(backbone, 12, 5.0, **fit_settings(chunk)),
    "finetune": lambda backbone, chunk: FineTune(backbone, 12, "none", 0.3, **fit_settings(chunk)),
    "l2sp": lambda backbone, chunk: FineTune(backbone, 12, "l2sp", 0.3, **fit_settings(chunk)),
    "features": lambda backbone, chunk: FineTune(backbone, 12, "features", 0.3, **fit_settings(chunk)),
    "meta_baseline": lambda backbone, chunk: MetaBaseline(backbone, 12, 10, 0.6, 32, 5.0, "auto", chunk),
}


def examples(n: int = 24) -> Examples:
    return noise_tasks().gather_examples("train", np.arange(n))


@pytest.mark.parametrize("name", LEARNERS)
def test_it_pretrains_on_the_cross_entropy_of_all_training_classes(name: str) -> None:
    """With running averages in BatchNorm, which move as torch's own do: 0.9 of the old and 0.1 of the new."""
    learner: Pretraining = LEARNERS[name](conv4("running"), 1).train()
    x, y = examples()
    first = F.conv2d(x, learner.backbone.blocks[0].weight, stride=2, padding=1)
    expected = F.cross_entropy(learner.classifier(copy.deepcopy(learner.backbone)(x)), y)
    loss, metrics = learner.meta_loss(as_drawn(learner, Examples(x, y)))
    assert torch.allclose(loss, expected)
    assert metrics["loss"] == loss.detach()
    assert torch.allclose(learner.backbone.blocks[1].running_mean, 0.1 * first.mean((0, 2, 3)))
    assert torch.allclose(learner.backbone.blocks[1].running_var, 0.9 + 0.1 * first.var((0, 2, 3)))


def test_label_smoothing_spreads_a_part_of_each_label_over_all_training_classes() -> None:
    """By hand: (1 - e) times the label's cross-entropy and e times the mean over all classes."""
    for learner in (
        Baseline(conv4("none"), 12, label_smoothing=0.2, **fit_settings(1)),
        BaselinePP(conv4("none"), 12, 5.0, label_smoothing=0.2, **fit_settings(1)),
        FineTune(conv4("none"), 12, "none", 0.3, label_smoothing=0.2, **fit_settings(1)),
        MetaBaseline(conv4("none"), 12, 10, 0.6, 32, 5.0, "auto", 1, 0.2),
    ):
        x, y = examples()
        logs = learner.classifier(learner.backbone(x)).log_softmax(-1)
        expected = -0.8 * logs[range(24), y].mean() - 0.2 * logs.mean()
        assert torch.allclose(learner.meta_loss(as_drawn(learner, Examples(x, y)))[0], expected)


@pytest.mark.parametrize("bn", ["transductive", "support", "running"])
@pytest.mark.parametrize("name", LEARNERS)
def test_a_loop_over_tasks_and_vmap_give_the_same_scores(name: str, bn: str) -> None:
    scores = []
    for chunk in (1, 4):
        torch.manual_seed(0)
        learner = LEARNERS[name](conv4(bn), chunk).train()
        learner.meta_loss(as_drawn(learner, examples()))
        scores.append(learner.eval().evaluate(batch()))
    assert furthest(*scores) < 1e-9


def test_simpleshot_takes_off_the_mean_and_scales_to_length_one() -> None:
    """Mean (1, 1). Support (3, 1), (1, 4) -> (1, 0), (0, 1); query (4, 5) - (1, 1) = (3, 4) -> (0.6, 0.8): squared
    distances 0.16 + 0.64 = 0.8 and 0.36 + 0.04 = 0.4. Not centred, not scaled: 1 + 16 = 17 and 9 + 1 = 10."""
    expected = {"cl2n": [-0.8, -0.4], "un": [-17.0, -10.0]}
    for features, distances in expected.items():
        learner = SimpleShot(Identity(2), 3, features, "auto", 1)
        learner.mean.fill_(1.0)
        assert torch.allclose(logits(learner, [[3.0, 1], [1, 4]], [0, 1], [[4.0, 5]]), torch.tensor([distances]))


def test_simpleshot_with_l2n_scales_to_length_one_and_takes_nothing_off() -> None:
    """Support (2, 0), (0, 5) -> (1, 0), (0, 1); query (3, 4) -> (0.6, 0.8): 0.16 + 0.64 = 0.8 and 0.36 + 0.04 = 0.4.
    Not scaled it would be 1 + 16 = 17 and 9 + 1 = 10, and the mean, were it taken off, would change all."""
    learner = SimpleShot(Identity(2), 3, "l2n", "auto", 1)
    learner.mean.fill_(1.0)
    got = logits(learner, [[2.0, 0], [0, 5]], [0, 1], [[3.0, 4]])
    assert torch.allclose(got, torch.tensor([[-0.8, -0.4]]))


def test_simpleshots_mean_follows_the_training_batches() -> None:
    """0.1 of the first batch's mean 1, then 0.9 of that and 0.1 of the second's mean 3: 0.39."""
    learner = SimpleShot(Identity(2), 3, "cl2n", "auto", 1).train()
    for value in (1.0, 3.0):
        learner.meta_loss(Examples(torch.full((4, 2), value), torch.tensor([0, 1, 2, 0])))
    assert torch.allclose(learner.mean, torch.full((2,), 0.39))


@pytest.mark.parametrize("name", ["baseline", "baseline_pp"])
def test_a_tasks_head_is_what_torchs_optimizer_makes_of_it(name: str) -> None:
    torch.manual_seed(0)
    support, query, y = torch.randn(6, 4), torch.randn(5, 4), torch.tensor([0, 1, 2, 2, 1, 0])
    learner = LEARNERS[name](Identity(4), 1)
    if name == "baseline":
        head = nn.Linear(4, 3)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    else:
        head = CosineHead(4, 3, 5.0)
        unit = support / support.norm(dim=1, keepdim=True)
        head.weight.data = torch.stack([unit[y == c].mean(0) for c in range(3)])
    fit_with_decay(head, support, y)
    assert torch.allclose(logits(learner, support.tolist(), y.tolist(), query.tolist()), head(query))


@pytest.mark.parametrize("scale", [5.0, 2.0])
def test_baseline_pp_scales_its_cosines_in_training_and_in_test(scale: float) -> None:
    """Weights (2, 0) and (1, 1) have cosines 1 and 1 / sqrt 2 with (3, 0). A head that is not fitted is the class means
    of (3, 0) -> (1, 0) and (0, 4) -> (0, 1), whose cosines with the query (6, 8) are 0.6 and 0.8."""
    learner = BaselinePP(Identity(2), 2, scale, **fit_settings(1) | {"test_inner_steps": 0})
    learner.classifier.weight.data = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    expected = torch.tensor([[scale, scale * 0.5**0.5]])
    assert torch.allclose(learner.classifier(torch.tensor([[3.0, 0.0]])), expected)
    got = logits(learner, [[3.0, 0], [0, 4]], [0, 1], [[6.0, 8]])
    assert torch.allclose(got, torch.tensor([[0.6 * scale, 0.8 * scale]]))


def fit(
    module: nn.Module, x: torch.Tensor, y: torch.Tensor, pull: Callable[[], torch.Tensor | float] = lambda: 0.0
) -> None:
    optim = torch.optim.SGD(module.parameters(), LR)
    for _ in range(STEPS):
        optim.zero_grad()
        (F.cross_entropy(module(x), y) + pull()).backward()
        optim.step()


def fit_with_decay(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    fit(module, x, y, lambda: DECAY / 2 * sum(value.square().sum() for value in module.parameters()))


@pytest.mark.parametrize("pull", ["none", "l2sp", "features"])
def test_fine_tuning_is_what_torchs_optimizer_makes_of_a_copy_of_the_network(pull: str) -> None:
    """With a pull the head alone decays: the network goes to its source, not to zero."""
    learner, task = LEARNERS["finetune" if pull == "none" else pull](conv4(), 1).eval(), batch(1)
    before = copy.deepcopy(learner.state_dict())
    x, y, query = task.support.x[0], task.support.y[0], task.query.x[0]
    net = nn.Sequential(copy.deepcopy(learner.backbone), nn.Linear(6, 3))
    source = copy.deepcopy(net[0])
    embedded = net[0](x).detach()
    unit = F.normalize(embedded, dim=1)
    net[1].weight.data = torch.stack([unit[y == c].mean(0) for c in range(3)])
    nn.init.zeros_(net[1].bias)

    def far() -> torch.Tensor:
        decay = DECAY / 2 * sum(value.square().sum() for value in net[1].parameters())
        if pull == "features":
            return decay + 0.3 * (net[0](x) - embedded).square().sum() / len(x)
        pairs = zip(net[0].parameters(), source.parameters(), strict=True)
        return decay + 0.3 * sum((value - was.detach()).square().sum() for value, was in pairs)

    if pull == "none":
        fit_with_decay(net, x, y)
    else:
        fit(net, x, y, far)
    expected = F.cross_entropy(net(query), task.query.y[0])
    assert torch.allclose(learner.evaluate(task)["loss"], expected, rtol=1e-12)
    assert furthest(learner.state_dict(), before) == 0


def test_what_is_pulled_to_its_source_does_not_decay_to_zero() -> None:
    """Of one class the cross-entropy is 0: a pulled factor stays at its source 1.5, and without a pull it decays to
    (1 - .1 * .01)^7 of that in seven steps. So does the head, from 1 in either case."""
    x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([0, 0])
    for pull, factor in (("l2sp", 1.0), ("none", (1 - LR * DECAY) ** STEPS)):
        learner = FineTune(Scaled(), 12, pull, 0.3, **fit_settings(1))
        tuned = learner.adapt(learner.theta(), Examples(x, y), 1).phi
        assert tuned["backbone.factor"].item() == pytest.approx(1.5 * factor, rel=1e-12)
        assert tuned["head.weight"].item() == pytest.approx((1 - LR * DECAY) ** STEPS, rel=1e-12)


class Scaled(nn.Module):
    """x times a factor."""

    out_features = 1

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


@pytest.mark.parametrize("pull", ["l2sp", "features"])
def test_the_stronger_the_pull_the_nearer_the_network_stays(pull: str) -> None:
    """By the weights for one pull, by the embeddings of the support set for the other."""
    task, lengths = batch(1), []
    torch.manual_seed(0)
    backbone = conv4()
    for weight in (0.0, 0.05, 0.2):
        learner = FineTune(backbone, 12, pull, weight, **fit_settings(1)).eval()
        theta = learner.theta()
        tuned = learner.adapt(theta, Examples(task.support.x[0], task.support.y[0]), 3).phi
        moved = [tuned[name] - value for name, value in theta.items() if name.startswith("backbone.")]
        if pull == "features":
            x = task.support.x[0]
            moved = [call(backbone, within(tuned, "backbone"), x) - backbone(x)]
        lengths.append(sum(value.square().sum().item() for value in moved))
    assert lengths[0] > 1.01 * lengths[1] > 1.01 * lengths[2]


def test_meta_baseline_takes_images_then_tasks_wherever_the_stream_starts() -> None:
    learner, source = LEARNERS["meta_baseline"](conv4(), 1), noise_tasks()
    whole = [batch.drawn for batch in islice(learner.train_stream(source, 0, 2), 9)]
    assert [type(one) for one in whole] == [Examples] * 6 + [Batch] * 3
    assert [len(one.y) for one in whole[:6]] == [32] * 6
    for start in (4, 6, 7):
        for (one, _, _), other in zip(learner.train_stream(source, start, 2), whole[start:], strict=False):
            pairs = (
                zip(one, other, strict=True) if isinstance(one, Examples) else zip(one.query, other.query, strict=True)
            )
            assert all(torch.equal(a, b) for a, b in pairs)


def test_meta_baseline_scales_the_cosine_to_class_means() -> None:
    """Class means (1, 1) and (0, 1); the query (0, 2) has cosines sqrt(1/2) and 1, times 5."""
    learner = LEARNERS["meta_baseline"](Identity(2), 1)
    got = logits(learner, [[2.0, 0], [0, 2], [0, 1]], [0, 0, 1], [[0.0, 2]])
    assert torch.allclose(got, torch.tensor([[5 * 0.5**0.5, 5.0]]))


def test_data_without_labelled_images_is_refused_when_the_learner_is_built(settings: Callable[..., DictConfig]) -> None:
    config = settings("algo=baseline")
    source = build_source(resolve(config), torch.device("cpu"))
    source.info = replace(source.info, train_classes=None)
    with pytest.raises(ConfigError, match="Baseline trains on single labelled examples, and the chosen data has none"):
        build_learner(resolve(config), source)
