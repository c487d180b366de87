"""The best checkpoints of a run, tested together by the mean of what they predict."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from conftest import one_of_each
from omegaconf import DictConfig
from test_contract import NETWORKS, parts_of
from test_outer_loop import Counting, StopsAfter, run_in
from torch import Tensor, nn

from metarun.algos.base.abilities import AdaptsToTask
from metarun.core import objectives
from metarun.core.tasks import Examples
from metarun.run import checkpoint
from metarun.run.ensemble import BestOnes, Ensemble
from metarun.run.interrupt import Interrupted, StopRequest

Settings = Callable[..., DictConfig]


class Answering(Counting):
    """Predicts theta times x for any task."""

    def adapt_to(self, support: Examples, n_way: int) -> Callable[[Tensor], Tensor]:
        return lambda x: self.theta * x


def steps_in(best: Path) -> list[int]:
    saved = checkpoint.load(best)
    return [saved["step"], *(step for step, _, _ in saved.get("others", ()))]


def test_the_best_are_kept_the_first_of_equal_ones_first_and_a_step_that_is_made_again_once() -> None:
    kept, network = BestOnes(2), nn.Linear(1, 1)
    found = []
    for step, score in ((1, 0.5), (2, 0.3), (3, 0.5), (4, 0.4), (5, 0.9), (5, 0.9)):
        network.weight.data.fill_(step)
        found.append(kept.add(step, score, network))  # type: ignore[arg-type]
    assert found == [True, True, True, False, True, True]
    assert [(step, score, float(weights["weight"])) for step, score, weights in kept.members] == [
        (5, 0.9, 5),
        (1, 0.5, 1),
    ]


def test_a_validation_that_is_no_number_is_the_worst_and_not_the_best_for_ever() -> None:
    kept, network = BestOnes(1), nn.Linear(1, 1)
    found = [kept.add(step, score, network) for step, score in ((1, math.nan), (2, -5.0), (3, math.nan))]  # type: ignore[arg-type]
    assert (found, kept.members[0][:2]) == ([True, True, False], (2, -5.0))


@pytest.mark.parametrize("algo", one_of_each(NETWORKS))
def test_twice_the_same_weights_answer_as_the_learner_alone(settings: Settings, algo: str) -> None:
    parts = parts_of(settings(f"algo={algo}", "bn=support"))
    if not isinstance(learner := parts.learner.eval(), AdaptsToTask):
        pytest.skip("it has no outputs of a task")
    batch = next(learner.eval_stream(parts.source, "test", 3, 4))
    state = deepcopy(learner.state_dict())
    together = Ensemble(learner, parts.source.info.objective, [state, state])
    alone = learner.evaluate(batch)
    assert torch.allclose(together.evaluate(batch)["accuracy"], alone["accuracy"], atol=1e-6)


def test_classes_get_the_mean_of_the_probabilities(settings: Settings) -> None:
    parts = parts_of(settings("algo=protonet"))
    learner = parts.learner.eval()
    assert isinstance(learner, AdaptsToTask)
    batch = next(learner.eval_stream(parts.source, "test", 0, 2))
    states, shares = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        for weight in learner.parameters():
            nn.init.normal_(weight, std=0.3)
        states.append(deepcopy(learner.state_dict()))
        tasks = [Examples(*side) for side in zip(*batch.support, strict=True)]
        shares.append([learner.adapt_to(s, 5)(x).softmax(-1) for s, x in zip(tasks, batch.query.x, strict=True)])
    found = Ensemble(learner, parts.source.info.objective, states).evaluate(batch)
    for task, (one, other) in enumerate(zip(*shares, strict=True)):
        expected = objectives.classification(((one + other) / 2).log(), batch.query.y[task])
        assert torch.allclose(found["accuracy"][task], expected["accuracy"])
        assert torch.allclose(found["loss"][task], expected["loss"], atol=1e-5)
        assert not torch.allclose(
            found["loss"][task], objectives.classification(one.log(), batch.query.y[task])["loss"]
        )


def test_a_run_tests_its_best_checkpoints_together_and_so_does_a_resumed_one(tmp_path: Path) -> None:
    """Validation is best after step 4, then 7 (of 2, 4, 6 and 7). Functions get the mean of the values."""
    found = []
    for name, stops in (("done", ()), ("resumed", (4,))):
        torch.manual_seed(0)
        for step in stops:
            stop = StopRequest()
            with pytest.raises(Interrupted):
                run_in(tmp_path / name, Answering(), ensemble=2).execute([StopsAfter(step, stop)], stop)
            assert steps_in(tmp_path / name / "checkpoints" / "best.pt") == [4, 2]
        run = run_in(tmp_path / name, Answering(), ensemble=2)
        if stops:
            run.restore()
        outcome = run.execute([], StopRequest())
        assert outcome["ensemble"] == [4, 7]
        found.append(outcome["test"])
        assert steps_in(tmp_path / name / "checkpoints" / "best.pt") == [4, 7]
    saved = checkpoint.load(tmp_path / "done" / "checkpoints" / "best.pt")
    thetas = [saved["learner"]["theta"], saved["others"][0][2]["theta"]]
    batch = next(run.parts.source.episodes("test", 0, 10))
    assert thetas[0] != thetas[1]
    expected = (sum(thetas) / 2 * batch.query.x - batch.query.y).square().mean()
    assert found[0] == found[1]
    assert found[0]["mse"]["mean"] == pytest.approx(float(expected), rel=1e-5)


def test_a_method_without_outputs_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"run.ensemble=2 takes the mean of what .* Counting predicts nothing"):
        run_in(tmp_path / "r", ensemble=2)
