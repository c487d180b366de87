"""A support set that is given twice says what it says once, for every algorithm whose mathematics says so.

Means over the support set are easily written as sums, which is seen by nobody who trains and tests at the same shots.
"""

from __future__ import annotations

import pytest
import torch
from conftest import one_of_each
from test_leakage import ON, Build, build, predicted, tasks_of, ways_of  # noqa: F401

from metarun.algos.base.learner import Learner
from metarun.core.tasks import Batch, Examples

pytestmark = pytest.mark.usefixtures("doubles")

MORE_EVIDENCE = "is weighed against a prior or a penalty"
IN_TURN = "examples are read or learned one after the other"
WITH_QUERIES = "support and query points are weighed together"
SAYS_MORE = {
    **dict.fromkeys(("abml", "distill", "gp_oracle", "metaoptnet", "r2d2"), MORE_EVIDENCE),
    **dict.fromkeys(("anml", "oml", "mann", "snail"), IN_TURN),
    **dict.fromkeys(("bd_cspn", "laplacian_shot", "pt_map", "caml"), WITH_QUERIES),
    "neural_statistician": "its context network is told how many members a set has",
    "pmf": "copies of an image are changed by its place in the support set",
    "relationnet": "sums the maps of a class, as its paper does",
    "tip_adapter": "sums over its cache, as its paper does",
}
"""Methods to which a support set of twice the size says something else, and why."""


def repeat_support(batch: Batch) -> Batch:
    return batch._replace(support=Examples(*(torch.cat([side, side], 1) for side in batch.support)))


def furthest(learner: Learner, one: Batch, other: Batch) -> float:
    torch.manual_seed(0)
    first = predicted(learner, one)
    torch.manual_seed(0)
    return max(float((a - b).abs().max()) for a, b in zip(first, predicted(learner, other), strict=True))


@pytest.mark.parametrize(("algo", "data"), one_of_each(ON))
def test_a_support_set_given_twice_says_what_it_says_once(build: Build, algo: str, data: str) -> None:  # noqa: F811
    parts = build(algo, data, "none")
    batch = tasks_of(parts.source, "test", 0, 2)
    for _ in ways_of(parts.learner.eval()):
        apart = furthest(parts.learner, batch, repeat_support(batch))
        assert (apart > 1e-6) == (algo in SAYS_MORE), f"{apart}: {SAYS_MORE.get(algo)}"
