"""Each algorithm gets better than chance could explain, on tiny networks in seconds.

One method of each base class by default, but for Reptile and Baseline, which take longest: they and the others
are slow.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from _pytest.mark import ParameterSet
from omegaconf import DictConfig
from scipy import stats
from test_contract import ALGOS, FAMILIES, PAIRS, parts_of

from metarun.run.evaluation import evaluate
from metarun.run.interrupt import StopRequest
from metarun.run.parts import Parts

FUNCTIONS = [algo for algo, data in PAIRS if data == "sinusoid" and algo != "learned_optimizer"]  # which has its own
PROCESSES = ("cnp", "np", "anp")
CLASSIFIERS_FIRST = (
    "baseline", "baseline_pp", "finetune", "simpleshot", "bd_cspn", "laplacian_shot", "tim", "alpha_tim", "pt_map",
    "tip_adapter",
    "finetune_in_turn", "progressive",
)  # fmt: skip
"""Methods that learn to tell the training classes apart, image by image."""

STEPS = {  # running averages need longer; what sees no tasks in training, or is good from the start, as well
    "r2d2": 150,
    "meta_baseline": 200,
    "distill": 300,
    "cavia": 100,
    "pmf": 100,
    "imaml": 45,
    "metagan_maml": 50,
    "metanet": 40,
    "oml": 300,
    **dict.fromkeys(CLASSIFIERS_FIRST, 200),
    "pt_map": 150,
}
TASKS = {"metagan_maml": 120}
"""Of tests, 60 by default: more of them cost less than more outer steps of what trains slowly."""

SMALL_NET = ["backbone=conv4_strided", "optim.lr=0.003"]
FEW_INNER = ["algo.inner_steps=2", "algo.test_inner_steps=2", "run.meta_batch_size=4"]
IMAGES = [*SMALL_NET, "run.meta_batch_size=64"]
EXTRA = {
    "protonet": SMALL_NET,
    "matchingnet": SMALL_NET,
    "r2d2": SMALL_NET,
    "relationnet": SMALL_NET,
    "feat": SMALL_NET,
    "frn": SMALL_NET,
    "pmf": [*SMALL_NET, "algo.inner_lr=0"],  # fine-tuning alone makes it good before it learns
    "metaoptnet": SMALL_NET,
    **dict.fromkeys(CLASSIFIERS_FIRST, IMAGES),
    "finetune": [*IMAGES, "algo.test_inner_steps=5"],
    "pt_map": [*IMAGES, "algo.steps=5"],
    "distill": IMAGES,
    "cavia": ["algo.inner_lr=30", "optim.lr=0.01"],
    "meta_baseline": [*SMALL_NET, "algo.batch_size=64"],
    "minibatch_prox": ["algo.inner_steps=5", "algo.test_inner_steps=5", "optim.lr=0.01", "run.meta_batch_size=4"],
    "reptile": [
        "algo.inner_lr=0.003", "algo.inner_steps=4", "algo.test_inner_steps=8", "data.train.n_query=1",
        "run.meta_batch_size=3",
    ],
    "imaml": [*FEW_INNER, "algo.cg_steps=1"],
    "maml_pp": FEW_INNER,
    "metanet": ["run.meta_batch_size=4"],
    "metagan_maml": ["algo.filters=8", "algo.width=32", "algo.test_inner_steps=1", "run.meta_batch_size=4"],
    "oml": [*SMALL_NET, "bn=running", "algo.inner_lr=0.1", "data.train.k_shot=5"],
    "finetune_in_turn": [*IMAGES, "algo.moves=head", "algo.inner_lr=0.1"],
}  # fmt: skip


TOO_SLOW = (
    "abml", "anml", "caml", "follow_leader", "incontext", "lstm_learner", "mann", "neural_statistician", "snail",
)  # fmt: skip
"""Methods that have learned too little of images after a test's 60 outer steps; they learn functions below.

caml reads the features of a network that does not learn, here a random one: test_caml.py shows it learn. follow_leader
learns one network for all tasks, whose labels of classes say nothing of each other. anml has learned nothing of images
after 300 either: what is shown of it is that its equations are right, in test_continual.py.
"""

STEPS_ON_FUNCTIONS = {"abml": 120, "imaml": 100, "lstm_learner": 60, "minibatch_prox": 100, "reptile": 100}
"""Outer steps of what takes long, 200 by default."""

ON_FUNCTIONS = {
    "snail": ["algo.length=11", "algo.filters=16", "algo.attention=[[16,8],[16,8]]", "optim.lr=0.003"],
    "mann": ["algo.units=32", "algo.rows=16", "algo.size=8", "algo.reads=2", "optim.lr=0.003"],
    "incontext": ["algo.width=32", "optim.lr=0.003"],
    "abml": ["algo.test_samples=4"],
    "imaml": ["algo.inner_steps=3", "algo.test_inner_steps=3", "algo.cg_steps=2"],
    "lstm_learner": ["algo.inner_steps=3", "algo.test_inner_steps=3", "backbone.widths=[20,20]"],
    "minibatch_prox": ["algo.inner_steps=5", "algo.test_inner_steps=5"],
    "multitask": ["algo.tasks=80", "data.train.n_query=30", "algo.inner_lr=0.003"],
}

NO_WORSE = ("bpl",)
"""Methods that are good before they learn: see test_bpl.py for what they learn."""


QUICK = set(FAMILIES) - {"reptile", "baseline"}


def _one(*values: str, slow: bool) -> ParameterSet:
    return pytest.param(*values, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize(
    ("algo", "bn"),
    [
        *(_one(algo, "transductive", slow=algo not in QUICK) for algo in ALGOS if algo not in (*TOO_SLOW, *NO_WORSE)),
        *(_one(algo, bn, slow=True) for algo in ("maml", "protonet", "baseline") for bn in ("support", "running")),
    ],
)
def test_it_learns(settings: Callable[..., DictConfig], algo: str, bn: str) -> None:
    """Paired over 60 tasks or more: accuracy after training against before, p < 1e-4, and above 0.2 by as much."""
    steps = STEPS.get(algo, 60)
    small = [
        f"algo={algo}",
        f"bn={bn}",
        f"run.steps={steps}",
        "run.meta_batch_size=8",
        "backbone.hidden=16",
        *EXTRA.get(algo, []),
    ]
    config = settings(*small)
    parts = parts_of(config)

    before, after = before_and_after(parts, steps, config.run.meta_batch_size, TASKS.get(algo, 60), 20, "accuracy")
    assert stats.ttest_1samp(after, 0.2, alternative="greater").pvalue < 1e-4
    assert stats.ttest_rel(after, before, alternative="greater").pvalue < 1e-4


@pytest.mark.parametrize("algo", [_one(algo, slow=algo not in QUICK) for algo in FUNCTIONS])
def test_it_learns_functions(settings: Callable[..., DictConfig], algo: str) -> None:
    """Paired over 300 tasks: the squared error after training against before, p < 1e-4."""
    faster = [] if algo == "reptile" else ["optim.lr=0.01"]
    network = ["algo.width=32"] if algo in PROCESSES else ["backbone.widths=[40,40]"]
    steps = STEPS_ON_FUNCTIONS.get(algo, 200)
    small = ["data.k_shot=10", "data.n_query=20", f"run.steps={steps}", *network, *faster]
    parts = parts_of(settings(f"algo={algo}", "data=sinusoid", *small, *ON_FUNCTIONS.get(algo, [])))
    before, after = before_and_after(parts, steps, 8, 300, 100, "mse")
    assert stats.ttest_rel(after, before, alternative="less").pvalue < 1e-4


def before_and_after(
    parts: Parts, steps: int, meta_batch_size: int, n_tasks: int, at_once: int, score: str
) -> tuple[np.ndarray, np.ndarray]:
    """The score of so many test tasks, so many at once, before and after so many outer steps."""

    def tested() -> np.ndarray:
        return evaluate(parts.learner, parts.source, "test", n_tasks, at_once, StopRequest())[score]

    before = tested()
    stream = parts.learner.train().train_stream(parts.source, 0, meta_batch_size)
    for _ in range(steps):
        assert torch.isfinite(parts.learner.meta_step(next(stream), parts.optims)["loss"])
        for schedule in parts.schedules:
            schedule.step()
    return before, tested()
