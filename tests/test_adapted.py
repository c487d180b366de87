"""A learner in use: what it answers is what it is tested by, for any number of images of each class."""

from __future__ import annotations

import pytest
import torch
from conftest import one_of_each
from hydra.utils import get_object
from test_leakage import ON, SETTINGS, Build, build, predicted, tasks_of  # noqa: F401
from torch import Tensor

from metarun.algos.base.abilities import AdaptsToTask
from metarun.algos.base.episodic import EpisodicLearner
from metarun.core.tasks import Batch, Examples
from metarun.settings.check import has_head

pytestmark = pytest.mark.usefixtures("doubles")

CLASSIFIERS = [algo for algo, data in ON if data == "glyphs"]
OF_FUNCTIONS = [
    algo
    for algo, data in ON
    if data == "sinusoid" and issubclass(get_object(SETTINGS[algo]["_target_"]), EpisodicLearner)
]


def answered(learner: object, batch: Batch, ways: int) -> Tensor:
    """The outputs [M, ...] for the queries of the batch's first task."""
    assert isinstance(learner, AdaptsToTask)
    return learner.adapt_to(Examples(batch.support.x[0], batch.support.y[0]), ways)(batch.query.x[0])


@pytest.mark.parametrize("algo", one_of_each(CLASSIFIERS))
def test_the_answers_are_those_that_are_scored(build: Build, algo: str) -> None:  # noqa: F811
    parts = build(algo, "glyphs")
    learner, batch = parts.learner.eval(), tasks_of(parts.source, "val", 0, 1)
    output = answered(learner, batch, batch.n_way)
    assert torch.equal(output, predicted(learner, batch)[0][0])
    assert not output.requires_grad


@pytest.mark.parametrize("algo", one_of_each(OF_FUNCTIONS))
def test_of_functions_too(build: Build, algo: str) -> None:  # noqa: F811
    parts = build(algo, "sinusoid")
    learner, batch = parts.learner.eval(), tasks_of(parts.source, "val", 0, 1)
    assert torch.equal(answered(learner, batch, 0), predicted(learner, batch)[0][0])


@pytest.mark.parametrize("algo", one_of_each(CLASSIFIERS))
def test_classes_may_have_any_number_of_images_and_no_query_matters_to_another(build: Build, algo: str) -> None:  # noqa: F811
    """Three images of class 0, two of class 1, one of the others; three classes where the learner has no head.

    Queries matter to each other where the learner says that it answers them together.
    """
    parts = build(algo, "glyphs", "support")
    learner, batch = parts.learner.eval(), tasks_of(parts.source, "val", 0, 1)
    assert isinstance(learner, AdaptsToTask)
    (x, y), (more, labels) = ([part[0] for part in side] for side in (batch.support, batch.query))
    ways = batch.n_way if has_head(SETTINGS[algo]["_target_"]) else 3
    parts_of = [[x[y == c], more[labels == c][: max(0, 2 - c)]] for c in range(ways)]
    rows = [torch.cat(both) for both in parts_of]
    assert [len(own) for own in rows] == [3, 2, *[1] * (ways - 2)]
    uneven = Examples(torch.cat(rows), torch.repeat_interleave(torch.arange(ways), torch.tensor([*map(len, rows)])))
    predict, asked = learner.adapt_to(uneven, ways), more[labels > 1]
    together = predict(asked)
    assert together.shape == (len(asked), ways)
    assert together.isfinite().all()
    assert len({*together.flatten().tolist()}) > len(asked)  # they differ
    alone = torch.cat([predict(one[None]) for one in asked])
    assert torch.allclose(together, alone, rtol=1e-9, atol=1e-12) == (parts.learner.answers == "alone")
