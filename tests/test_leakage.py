"""The leakage contract: every algorithm's YAML, found by globbing, depends on nothing that it must not see.

Predictions do not depend on the answers of the query set, nothing of a task on the other tasks of its meta-batch, and
training on nothing of val and test; an evaluation leaves nothing behind, even one that fails. In float64, on tiny
networks, each method on images, on functions, or on both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import as_drawn, one_of_each
from hydra.utils import get_object
from omegaconf import DictConfig
from test_contract import PAIRS, acts, choices, meta_step, same, state_of
from torch import Tensor

from metarun.algos.base.episodic import EpisodicLearner
from metarun.algos.base.learner import Learner
from metarun.algos.base.metric import MetricLearner
from metarun.algos.base.pretraining import Pretraining
from metarun.algos.generative.metagan import MetaGAN
from metarun.algos.transfer.meta_baseline import MetaBaseline
from metarun.algos.transfer.pmf import PMF
from metarun.core.task_streams import StreamSource
from metarun.core.tasks import Batch, Examples, ExampleSource, Pairs, PairSource, TaskSource
from metarun.ops import context
from metarun.run.evaluation import evaluate
from metarun.run.interrupt import StopRequest
from metarun.run.parts import Parts
from metarun.settings.build import build_parts
from metarun.settings.conf import read_shipped
from metarun.settings.ranges import find_parameters
from metarun.settings.resolve import resolve

pytestmark = pytest.mark.usefixtures("doubles")

SETTINGS = {name: values for name, values in choices("algo").items() if not acts("algo", name)}
CLASSES = {algo: get_object(values["_target_"]) for algo, values in SETTINGS.items()}
SOURCES = {algo: [data for name, data in PAIRS if name == algo] for algo in CLASSES}
ON = [  # glyphs and sine waves, where a method can learn from them; else the first data that it can
    (algo, data)
    for algo, known in SOURCES.items()
    for data in [name for name in ("glyphs", "sinusoid") if name in known] or known[:1]
]
OF_ALL_POINTS = {  # scores of all query points together, which tell of each other
    "np": {"loss", "log_likelihood"},
    "anp": {"loss", "log_likelihood"},
    "gp_oracle": {"loss", "log_likelihood"},
    "abml": {"ece"},
}
FROM_TASKS = [  # those that learn from tasks one by one, and not from single images, a meta-batch as one or not at all
    (algo, data)
    for algo, data in ON
    if algo not in ("gp_oracle", "taml")
    and (not issubclass(CLASSES[algo], Pretraining) or CLASSES[algo] is MetaBaseline)
]

TINY = {
    "glyphs": ["backbone=mlp", "backbone.widths=[6,5]", "data.n_query=2", "data.train.n_query=2"],
    "sinusoid": ["backbone.widths=[6,5]", "data.n_query=4"],
    "gp": ["data.n_query=4"],
    "described": ["backbone=mlp", "backbone.widths=[6,5]", "data.n_way=4", "data.n_query=2", "data.train.n_query=2"],
    "moons": ["backbone.widths=[6,5]", "data.n_query=4"],
    "turned_moons": ["backbone.widths=[6,5]", "data.n_query=4"],
}
FEW = {  # where a method has them
    "inner_steps": 2,
    "test_inner_steps": 3,
    "report_steps": [0, 1],
    "iterations": 8,
    "cg_steps": 2,
    "batch_size": 12,
    "width": 8,
    "latent": 4,
    "heads": 2,
}

UNTAUGHT = ("metareg",)
"""Methods that answer by what training taught them alone, as their tests have its classes."""

Build = Callable[..., Parts]


def test_every_algorithm_is_under_the_contract() -> None:
    assert {algo for algo, _ in ON} == set(SETTINGS)


@pytest.fixture
def build(settings: Callable[..., DictConfig]) -> Build:
    def built(algo: str, data: str, bn: str | None = None) -> Parts:
        """Composed once for all methods, into which a method's own settings are put: composing is slow."""
        config = settings(f"data={data}", "run.compile=false", *TINY[data])
        config.algo = read_shipped(algo, "algo")
        if "backbone" not in find_parameters(config.algo["_target_"]):
            config.backbone = read_shipped("none", "backbone")
        config.algo.update({name: value for name, value in FEW.items() if name in SETTINGS[algo]})
        config.bn = bn or config.bn
        return build_parts(resolve(config), Path())

    return built


def tasks_of(source: TaskSource, split: str, first: int, n: int) -> Batch:
    return next(source.episodes(split, first, n))


def others(batch: Batch, side: str) -> Batch:
    """The tasks with other answers to the points of a side: values that are 9 higher; of classes the next one in the
    support set, and in the query set fewer classes than there are, lest what all answers have in common stay as it is.
    """
    x, y = getattr(batch, side)
    if not batch.n_way:
        return batch._replace(**{side: Examples(x, y + 9)})
    return batch._replace(**{side: Examples(x, (y + 1) % batch.n_way if side == "support" else y // 2)})


def joined(first: Batch, then: Batch) -> Batch:
    """The first task of the one, followed by all but the first of the other."""
    sides = zip(first[:2], then[:2], strict=True)
    return Batch(*(Examples(*(torch.cat([a[:1], b[1:]]) for a, b in zip(*two, strict=True))) for two in sides), then[2])


def ways_of(learner: Learner) -> Iterator[None]:
    """Task by task, then all tasks at once; once where there is but one way."""
    for chunk in (1, 3) if isinstance(learner, EpisodicLearner) else (0,):
        if chunk:
            learner.task_chunk = chunk
        yield


def predicted(learner: Learner, batch: Batch) -> list[Tensor]:
    """All that the learner says of the query points, before anything is compared with an answer."""
    drawn = learner.predictions(batch)
    found = [] if drawn is None else [value for value in drawn if value is not None]
    if isinstance(learner, EpisodicLearner):
        compare = learner.score
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(learner, "score", lambda *seen: compare(*seen) | {"output": seen[2]})
            scores = learner.evaluate(batch)
        found = [value for name, value in scores.items() if name.startswith("output")] + found
    assert found, "how is this learner's prediction to be had?"
    return found


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("algo", "data"), one_of_each(ON))
def test_what_is_predicted_depends_on_the_answers_of_the_support_set_alone(build: Build, algo: str, data: str) -> None:
    parts = build(algo, data)
    learner, batch = parts.learner.eval(), tasks_of(parts.source, "val", 0, 3)
    for _ in ways_of(learner):
        before = predicted(learner, batch)
        assert equal(before, predicted(learner, others(batch, "query")))
        assert equal(before, predicted(learner, others(batch, "support"))) == (algo in UNTAUGHT)


@pytest.mark.parametrize(("algo", "data"), one_of_each(ON))
def test_scores_hold_these_predictions_against_each_points_own_answer(build: Build, algo: str, data: str) -> None:
    """Accuracy and squared error are of what is predicted where the answers are others. Every other score is a mean
    over points of what the point's own answer decides: of two sets of answers and of the two that have exchanged some
    of their points, the sums agree."""
    parts = build(algo, data)
    learner, batch = parts.learner.eval(), tasks_of(parts.source, "val", 0, 3)
    other = others(batch, "query")
    told = None if batch.n_way else learner.predictions(batch)  # of functions: means, where a Gaussian is predicted
    output = predicted(learner, batch)[0] if told is None else told.mean
    y, z = batch.query.y, other.query.y
    crossed = [
        batch._replace(query=Examples(batch.query.x, torch.cat([a[:, :2], b[:, 2:]], 1))) for a, b in ((y, z), (z, y))
    ]
    found, changed, one, two = (learner.evaluate(each) for each in (batch, other, *crossed))
    if batch.n_way:
        assert torch.equal(changed["accuracy"], (output.argmax(-1) == z).double().mean(-1))
    else:
        assert torch.allclose(changed["mse"], (output - z).square().mean((1, 2)), rtol=1e-12)
    for name in found.keys() - OF_ALL_POINTS.get(algo, set()):
        assert torch.allclose(found[name] + changed[name], one[name] + two[name], rtol=1e-9, atol=1e-12), name
    assert (found["loss"] != changed["loss"]).all()


@pytest.mark.parametrize(("algo", "data"), one_of_each(ON))
def test_a_tasks_scores_do_not_depend_on_the_other_tasks(build: Build, algo: str, data: str) -> None:
    """The first of three, once with these and once with others."""
    parts = build(algo, data)
    batch, later = (tasks_of(parts.source, "val", first, 3) for first in (0, 3))
    for _ in ways_of(parts.learner.eval()):
        scores, changed = (parts.learner.evaluate(each) for each in (batch, joined(batch, later)))
        for name, score in scores.items():
            assert torch.allclose(score[0], changed[name][0], rtol=1e-9, atol=1e-12), name
        assert (scores["loss"][1:] != changed["loss"][1:]).all()


@pytest.mark.parametrize(("algo", "data"), one_of_each(FROM_TASKS))
def test_what_a_task_adds_to_the_meta_gradient_does_not_depend_on_the_other_tasks(
    build: Build, algo: str, data: str
) -> None:
    """Of two meta-batches, and of the two that have exchanged their first tasks, the gradients' sums agree."""
    parts = build(algo, data)
    one, other = (tasks_of(parts.source, "train", first, 3) for first in (0, 3))
    learner = parts.learner.train()

    def gradient(batch: Batch) -> Tensor:
        torch.manual_seed(0)  # of latent vectors that are drawn
        learner.zero_grad()
        learner.meta_gradient(as_drawn(learner, batch))
        return torch.cat([value.grad.flatten() for value in learner.parameters() if value.grad is not None])

    for _ in ways_of(learner):
        straight = gradient(one), gradient(other)
        crossed = gradient(joined(one, other)), gradient(joined(other, one))
        size = straight[0].norm()
        assert (sum(straight) - sum(crossed)).norm() < 1e-9 * size
        assert (straight[0] - crossed[1]).norm() > 1e-4 * size  # a prior may pull harder than the tasks


class TrainingAlone:
    """A source that has tasks and examples of train, and nothing of any other split."""

    def __init__(self, source: TaskSource) -> None:
        self.info, self.source = source.info, source
        self.drawn = 0

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Batch]:
        return self._counted(split, self.source.episodes(split, first, batch_size))

    def examples(self, split: str, first: int, batch_size: int) -> Iterator[Examples]:
        assert isinstance(self.source, ExampleSource)
        return self._counted(split, self.source.examples(split, first, batch_size))

    def pairs(self, split: str, first: int, batch_size: int) -> Iterator[Pairs]:
        assert isinstance(self.source, PairSource)
        return self._counted(split, self.source.pairs(split, first, batch_size))

    def streams(self, split: str, first: int, n_tasks: int, n_way: int) -> Iterator[Batch]:
        assert isinstance(self.source, StreamSource)
        yield from self.source.streams(self._checked(split), first, n_tasks, n_way)

    def fingerprint(self, split: str, n_tasks: int) -> str:
        return self.source.fingerprint(self._checked(split), n_tasks)

    def _counted(self, split: str, stream: Iterator[Any]) -> Iterator[Any]:
        self._checked(split)
        for drawn in stream:
            self.drawn += 1
            yield drawn

    def _checked(self, split: str) -> str:
        if split != "train":
            pytest.fail(f"{split} was drawn from in training")
        return split


@pytest.mark.parametrize(("algo", "data"), one_of_each(ON))
def test_training_draws_nothing_of_val_and_test(build: Build, algo: str, data: str) -> None:
    """In the first and the last of 4 outer steps, since a method may train in stages."""
    parts = build(algo, data)
    parts.source = watched = TrainingAlone(parts.source)
    for step in (0, 3):
        meta_step(parts, step)
    assert watched.drawn == 2


class FailingLater:
    """A source whose second meta-batch has an answer more than points on a side."""

    def __init__(self, source: TaskSource, side: str) -> None:
        self.info, self.source, self.side = source.info, source, side

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Batch]:
        whole, broken = islice(self.source.episodes(split, first, batch_size), 2)
        yield whole
        x, y = getattr(broken, self.side)
        yield broken._replace(**{self.side: Examples(x[:, 1:], y)})


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize(("algo", "data"), one_of_each(ON))
def test_an_evaluation_that_fails_half_way_leaves_the_learner_as_it_was(build: Build, algo: str, data: str) -> None:
    """In the inner loop, by the support set, and at the scores, by the query set."""
    parts = build(algo, data)
    learner, batch = parts.learner, tasks_of(parts.source, "val", 0, 3)
    for _ in ways_of(learner):
        scores, before = learner.eval().evaluate(batch), state_of(learner)
        for side in ("support", "query")[algo in UNTAUGHT :]:
            learner.train()
            with pytest.raises((ValueError, RuntimeError, IndexError)):
                evaluate(learner, FailingLater(parts.source, side), "val", 6, 3, StopRequest())
            assert learner.training
            assert same(before, state_of(learner))
            assert all(value.grad is None for value in learner.parameters())
            assert (context.is_transformed(), context.in_inner_loop()) == (False, False)
        assert same(scores, learner.eval().evaluate(batch))


@pytest.mark.parametrize(
    "algo",
    [
        algo
        for algo, cls in CLASSES.items()
        if issubclass(cls, MetricLearner) and cls not in (MetaGAN, PMF) and "glyphs" in SOURCES[algo]
    ],
)
def test_a_failure_on_embedded_images_gives_the_learner_its_network_back(build: Build, algo: str) -> None:
    learner = build(algo, "glyphs", "running").learner.eval()
    assert learner.input_encoder() is not None
    before = learner.backbone, learner.task_chunk, learner.recorder
    inside: list[torch.nn.Module] = []
    with pytest.raises(KeyError), learner.encoded():
        raise KeyError(inside.append(learner.backbone))
    assert inside[0] is not before[0]
    assert (learner.backbone, learner.task_chunk, learner.recorder) == before
