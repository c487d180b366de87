"""Contract tests: every algorithm's YAML, found by globbing, keeps what metarun/algos/learner.py promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from metarun.build import build_parts
from metarun.check import check
from metarun.cli import CONF
from metarun.report.sinks import RunFacts
from metarun.run.offline import Parts
from metarun.types import Batch, Examples

ALGOS = sorted(path.stem for path in (CONF / "algo").glob("*.yaml"))
BACKBONES = ["conv4", "conv4_strided"]
BN = ["transductive", "support", "running"]
Settings = Callable[..., DictConfig]


def parts_of(config: DictConfig) -> Parts:
    check(config)
    OmegaConf.resolve(config)
    return build_parts(config, RunFacts("", "", "", [], {}, Path()))


def meta_step(parts: Parts, step: int) -> dict[str, torch.Tensor]:
    batch = next(parts.learner.train().train_stream(parts.source, step, 3))
    return parts.learner.meta_step(batch, parts.optims)


def state_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(params=[(algo, bn) for algo in ALGOS for bn in BN], ids=lambda pair: "-".join(pair))
def compose(request: pytest.FixtureRequest, settings: Settings) -> Callable[..., Parts]:
    algo, bn = request.param
    return lambda *overrides: parts_of(settings(f"algo={algo}", f"bn={bn}", *overrides))


def test_one_outer_step_changes_theta_and_reports_finite_numbers(compose: Callable[..., Parts]) -> None:
    parts = compose()
    before = state_of(parts.learner)
    metrics = meta_step(parts, 0)
    assert {"loss", "accuracy"} <= metrics.keys()
    assert all(value.dim() == 0 and torch.isfinite(value) and not value.requires_grad for value in metrics.values())
    changed = [name for name, value in parts.learner.named_parameters() if not torch.equal(before[name], value)]
    assert len(changed) == len(list(parts.learner.parameters()))


def test_evaluate_gives_one_number_a_task_and_leaves_no_trace(compose: Callable[..., Parts]) -> None:
    parts = compose()
    before = state_of(parts.learner)
    scores = parts.learner.eval().evaluate(next(parts.source.episodes("val", 0, 4)))
    assert all(score.shape == (4,) and not score.requires_grad for score in scores.values())
    assert ((scores["accuracy"] >= 0) & (scores["accuracy"] <= 1)).all()
    assert same(before, state_of(parts.learner))
    assert all(value.grad is None for value in parts.learner.parameters())


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(compose: Callable[..., Parts]) -> None:
    one, again, other = compose(), compose(), compose("seed=1")
    assert same(state_of(one.learner), state_of(again.learner))
    assert not same(state_of(one.learner), state_of(other.learner))
    for parts in (one, again):
        meta_step(parts, 0)
    assert same(state_of(one.learner), state_of(again.learner))


def test_permuting_the_tasks_permutes_the_scores(compose: Callable[..., Parts]) -> None:
    parts = compose()
    batch, order = next(parts.source.episodes("val", 0, 4)), torch.tensor([2, 0, 3, 1])
    permuted = Batch(*(Examples(side.x[order], side.y[order]) for side in (batch.support, batch.query)), batch.n_way)
    scores, permuted_scores = (parts.learner.eval().evaluate(b) for b in (batch, permuted))
    assert torch.allclose(scores["loss"][order], permuted_scores["loss"], atol=1e-5)


def test_two_steps_are_one_step_saved_loaded_and_one_more_bit_for_bit(compose: Callable[..., Parts]) -> None:
    straight, first, second = compose(), compose(), compose("seed=9")
    for step in (0, 1):
        meta_step(straight, step)
    meta_step(first, 0)
    second.learner.load_state_dict(first.learner.state_dict())
    for name, optim in second.optims.items():
        optim.load_state_dict(first.optims[name].state_dict())
    second.source = first.source
    meta_step(second, 1)
    assert same(state_of(straight.learner), state_of(second.learner))


@pytest.mark.parametrize("bn", ["support", "running"])
@pytest.mark.parametrize("algo", ALGOS)
def test_a_query_is_scored_alone_as_among_others_unless_bn_is_transductive(
    settings: Settings, algo: str, bn: str
) -> None:
    parts = parts_of(settings(f"algo={algo}", f"bn={bn}", "algo.task_chunk=1"))
    meta_step(parts, 0)
    learner = parts.learner.eval()
    batch = next(parts.source.episodes("val", 0, 1))
    alone = []
    for i in range(batch.query.y.shape[1]):
        one = Batch(batch.support, Examples(batch.query.x[:, i : i + 1], batch.query.y[:, i : i + 1]), batch.n_way)
        alone.append(learner.evaluate(one)["loss"])
    assert torch.allclose(torch.cat(alone).mean(), learner.evaluate(batch)["loss"], atol=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("algo", ALGOS)
def test_every_algorithm_runs_on_every_image_backbone(settings: Settings, algo: str, backbone: str) -> None:
    assert torch.isfinite(meta_step(parts_of(settings(f"algo={algo}", f"backbone={backbone}")), 0)["loss"])


@pytest.mark.parametrize("algo", ALGOS)
def test_every_algorithm_runs_on_the_fully_connected_net(settings: Settings, algo: str) -> None:
    config = settings(f"algo={algo}", "backbone=mlp")
    assert torch.isfinite(meta_step(parts_of(config), 0)["loss"])


def test_clipping_bounds_the_outer_step(settings: Settings) -> None:
    parts = parts_of(settings("optim=sgd", "optim.lr=1", "optim.clip_norm=0.01"))
    before = state_of(parts.learner)
    meta_step(parts, 0)
    moved = sum(((value - before[name]) ** 2).sum().item() for name, value in parts.learner.state_dict().items())
    assert moved**0.5 == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("optim", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize(
    ("schedule", "factors"), [("constant", [1, 1]), ("linear", [0.75, 0.5]), ("cosine", [0.854, 0.5])]
)
def test_every_optimizer_follows_every_schedule(
    settings: Settings, optim: str, schedule: str, factors: list[float]
) -> None:
    parts = parts_of(settings(f"optim={optim}", f"optim/schedule={schedule}", "optim.lr=0.1"))
    rates = []
    for step in range(2):
        meta_step(parts, step)
        parts.schedules[0].step()
        rates.append(parts.optims["outer"].param_groups[0]["lr"] / 0.1)
    assert rates == pytest.approx(factors, abs=1e-3)
