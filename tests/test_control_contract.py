"""The contract of methods that act in environments: every YAML of them, found by globbing, on data that it is for."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import metarun, stop_and_resume
from conftest import one_of_each
from hydra.utils import get_object
from omegaconf import DictConfig
from test_contract import acts, choices, meta_step, parts_of, same, state_of

from metarun.core.errors import ConfigError
from metarun.run.parts import Parts
from metarun.settings.check import check

ON = ("bandits", "tabular_mdp", "navigation")
KINDS = {data: get_object(choices("data")[data]["_target_"]).kinds for data in ON}
CONTROL = {
    algo: next(data for data in ON if set(KINDS[data]) & set(get_object(values["_target_"]).kinds))
    for algo, values in choices("algo").items()
    if acts("algo", algo)
}
CONTROL |= dict.fromkeys(("maml_rl", "cavia_rl", "multitask_rl", "promp"), "navigation")
"""Every method for environments, and data that it is for."""

SHORT = {"tabular_mdp": ["data.length=4", "data.episodes=3"], "navigation": ["data.length=6", "data.episodes=4"]}
Settings = Callable[..., DictConfig]


def build(settings: Settings, algo: str, *words: str) -> Parts:
    data = CONTROL[algo]
    return parts_of(settings(f"algo={algo}", f"data={data}", *SHORT.get(data, []), *words))


@pytest.fixture(params=one_of_each([*CONTROL]))
def algo(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_evaluate_gives_one_number_a_task_and_leaves_no_trace(settings: Settings, algo: str) -> None:
    parts = build(settings, algo)
    learner = parts.learner.eval()
    before, chance = state_of(learner), torch.get_rng_state()
    batch = next(learner.eval_stream(parts.source, "val", 0, 4))
    scores, again = learner.evaluate(batch), learner.evaluate(batch)
    assert {"loss", "return"} <= scores.keys()
    assert all(score.shape == (4,) and not score.requires_grad for score in scores.values())
    assert same(scores, again)
    assert same(before, state_of(learner))
    assert torch.equal(chance, torch.get_rng_state()), "what is drawn in tests comes from the environments"
    assert all(value.grad is None for value in learner.parameters())


def test_a_tasks_scores_depend_neither_on_the_others_nor_on_its_place(settings: Settings, algo: str) -> None:
    learner = (parts := build(settings, algo)).learner.eval()
    together = learner.evaluate(next(learner.eval_stream(parts.source, "test", 0, 6)))
    later = learner.evaluate(next(learner.eval_stream(parts.source, "test", 3, 2)))
    part = learner.evaluate(next(learner.eval_stream(parts.source, "test", 0, 6)).tasks(3, 5))
    for name, score in together.items():
        assert torch.allclose(score[3:5], later[name], atol=1e-5), name
        assert torch.allclose(score[3:5], part[name], atol=1e-5), name


def test_outer_steps_change_theta_report_finite_numbers_and_repeat_bit_for_bit(settings: Settings, algo: str) -> None:
    """Two steps, and one saved, loaded into what another seed made, and one more."""
    parts, again, other = build(settings, algo), build(settings, algo), build(settings, algo, "seed=9")
    before = state_of(parts.learner)
    assert same(before, state_of(again.learner))
    first = meta_step(parts, 0)
    assert {"loss", "return"} <= first.keys()
    assert all(value.dim() == 0 and torch.isfinite(value) and not value.requires_grad for value in first.values())
    after, optims = state_of(parts.learner), {n: deepcopy(o.state_dict()) for n, o in parts.optims.items()}
    names = [name for name, _ in parts.learner.named_parameters()]
    assert {name for name in names if not torch.equal(before[name], after[name])} == set(names)
    meta_step(again, 0)
    assert same(after, state_of(again.learner))
    other.learner.load_state_dict(after)
    for name, optim in other.optims.items():
        optim.load_state_dict(optims[name])
    other.source = parts.source
    assert same(meta_step(parts, 1), meta_step(other, 1))
    assert same(state_of(parts.learner), state_of(other.learner))


def test_training_draws_from_train_alone(settings: Settings, algo: str) -> None:
    parts = build(settings, algo)
    draw, splits = parts.source.environments, []
    parts.source.environments = lambda split, *others: (splits.append(split), draw(split, *others))[1]
    meta_step(parts, 0)
    assert splits == ["train"]


@pytest.mark.parametrize("other", ["glyphs", "sinusoid"])
def test_it_refuses_tasks_without_environments(settings: Settings, algo: str, other: str) -> None:
    with pytest.raises(ConfigError, match=f"the tasks of {other.title()} are .*: choose another algo or data"):
        check(settings(f"algo={algo}", f"data={other}"))


RUN = ["algo=rl2", "data=bandits", "logger=none", "run.meta_batch_size=4", "run.val_tasks=6", "run.test_tasks=20"]
RUN += ["run.log_every=1", "run.checkpoint_every=5", "algo.hidden=8"]


@pytest.mark.slow
def test_a_run_that_is_stopped_goes_on_bit_for_bit(tmp_path: Path, cache: Path) -> None:
    assert metarun(*RUN, "run.steps=50", "hydra.run.dir=whole", cwd=tmp_path, cache=cache)[0] == 0
    stop_and_resume(*RUN, steps=50, folder=tmp_path / "parted", cache=cache)
    lines = [read_losses(tmp_path / name) for name in ("whole", "parted")]
    assert len(lines[0]) > 50
    assert lines[0] == lines[1]
    one, other = (np.load(tmp_path / name / "test_tasks.npz") for name in ("whole", "parted"))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def read_losses(folder: Path) -> list[tuple[str, float, float]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(line["split"], line["step"], line["loss"]) for line in lines]


@pytest.mark.slow
def test_rules_stand_beside_learners_in_a_comparison(tmp_path: Path, cache: Path) -> None:
    """By the same pulls of the same tasks: all have the same hash of the test tasks."""
    chosen = "algo=rl2,thompson,bandit_optimum"
    words = ["-m", chosen, *RUN[1:-1], "run.steps=2", "hydra.sweep.dir=s"]
    assert metarun(*words, cwd=tmp_path, cache=cache)[0] == 0
    code, out, _ = metarun("compare", "s", cwd=tmp_path, cache=cache)
    assert code == 0
    assert all(name in out for name in ("rl2", "thompson", "bandit_optimum", "return"))
