"""What one query, or one task, is told does not depend on the others beside it, where a method says so."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from conftest import one_of_each
from hydra.utils import get_object
from test_contract import choices
from test_leakage import CLASSES, ON, Build, build, predicted, tasks_of, ways_of  # noqa: F401
from torch import Tensor

from metarun.core.tasks import Batch, Examples
from metarun.ops.functional import one_hot
from metarun.settings.ranges import find_annotations, find_choices

pytestmark = pytest.mark.usefixtures("doubles")

TOGETHER = {algo for algo, kind in CLASSES.items() if kind.answers != "alone"}
IMAGES = [algo for algo, data in ON if data == "glyphs"]
BATCHED = [algo for algo, kind in CLASSES.items() if vars(kind).get("batched")]


def replace_queries(batch: Batch) -> Batch:
    """The tasks with all query images but the first of each turned upside down."""
    x = batch.query.x
    return batch._replace(query=Examples(torch.cat([x[:, :1], 1 - x[:, 1:].flip(-2)], 1), batch.query.y))


@pytest.mark.parametrize("algo", one_of_each(IMAGES))
def test_a_query_is_told_without_the_others_with_statistics_of_the_support_set(build: Build, algo: str) -> None:  # noqa: F811
    """Each task has twice as many queries as support images, so that a network that counts the wrong ones is seen."""
    parts = build(algo, "glyphs", "support")
    learner, batch = parts.learner.eval(), tasks_of(parts.source, "val", 0, 3)
    assert batch.query.x.shape[1] > batch.support.x.shape[1]
    for _ in ways_of(learner):
        one, other = (predicted(learner, each)[0] for each in (batch, replace_queries(batch)))
        assert torch.allclose(one[:, 0], other[:, 0], rtol=1e-9, atol=1e-12) == (algo not in TOGETHER)
        assert not torch.allclose(one[:, 1:], other[:, 1:])


def list_choices(algo: str) -> list[dict[str, Any]]:
    """Every combination of what a method may choose among, but for the engine."""
    values = choices("algo")[algo]
    found = {name: find_choices(kind) for name, kind in find_annotations(values["_target_"]).items()}
    several = {name: options for name, options in found.items() if options and name in values and name != "engine"}
    return [dict(zip(several, one, strict=True)) for one in product(*several.values())]


@pytest.mark.parametrize(
    ("algo", "chosen"),
    [(algo, chosen) for algo in BATCHED for chosen in list_choices(algo)],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value,
)
def test_many_tasks_at_once_are_compared_as_each_is(algo: str, chosen: dict[str, Any]) -> None:
    """On embeddings of different lengths, whatever the method may choose among."""

    class Features(torch.nn.Identity):
        out_features = 4

    values = {name: value for name, value in choices("algo")[algo].items() if name != "_target_"} | chosen
    known = {"backbone": Features(), "train_classes": 5, "n_way": 3}
    kind = get_object(choices("algo")[algo]["_target_"])
    wanted = find_annotations(choices("algo")[algo]["_target_"])
    learner = kind(**{name: value for name, value in {**known, **values}.items() if name in wanted}).eval()
    draw, size = torch.Generator().manual_seed(0), torch.tensor([1.0, 2.0, 0.5])[:, None, None]
    support, query = (size * torch.rand(3, n, 4, generator=draw) for n in (6, 7))
    query = query * torch.rand(3, 7, 1, generator=draw).add(0.5)
    classes = one_hot(torch.tensor([0, 1, 2, 0, 1, 2]), 3, torch.float64).expand(3, 6, 3)
    together: Tensor = learner.compare(learner.theta(), support, classes, query)
    for task in range(3):
        alone = learner.compare(learner.theta(), support[task], classes[task], query[task])
        assert torch.allclose(together[task], alone, rtol=1e-9, atol=1e-12)
