"""Each algorithm gets better than chance could explain, on tiny networks in seconds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from scipy import stats
from test_contract import ALGOS, parts_of

from metarun.run.evaluation import evaluate
from metarun.run.interrupt import StopRequest

STEPS = {"protonet": 150}  # its running averages need longer
EXTRA = {
    "protonet": ["data.train.n_query=5"],
    "reptile": ["data.train.n_query=1", "algo.test_inner_steps=20", "run.meta_batch_size=5"],
}


@pytest.mark.parametrize("bn", ["transductive", "support", "running"])
@pytest.mark.parametrize("algo", ALGOS)
def test_it_learns(settings: Callable[..., DictConfig], algo: str, bn: str) -> None:
    """Paired over 60 tasks: accuracy after training against before, p < 1e-4, and above chance (0.2) by as much."""
    steps = STEPS.get(algo, 60)
    small = [
        f"algo={algo}",
        f"bn={bn}",
        f"run.steps={steps}",
        "run.meta_batch_size=8",
        "backbone.hidden=16",
        *EXTRA.get(algo, []),
    ]
    parts = parts_of(settings(*small))

    def accuracy() -> np.ndarray:
        return evaluate(parts.learner, parts.source, "test", 60, 10, StopRequest())["accuracy"]

    before = accuracy()
    stream = parts.learner.train().train_stream(parts.source, 0, 8)
    for _ in range(steps):
        assert torch.isfinite(parts.learner.meta_step(next(stream), parts.optims)["loss"])
        for schedule in parts.schedules:
            schedule.step()
    after = accuracy()
    assert stats.ttest_1samp(after, 0.2, alternative="greater").pvalue < 1e-4
    assert stats.ttest_rel(after, before, alternative="greater").pvalue < 1e-4
