"""A learner of three stages: what each draws, by which optimizer it descends, and that it can be taken up anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metarun.algos.base.learner import Learner
from metarun.algos.base.stages import Stage, Staged
from metarun.core import objectives
from metarun.core.tasks import Batch, Examples, Metrics, SourceInfo
from metarun.run.interrupt import Interrupted, StopRequest
from metarun.run.offline import OfflineRun
from metarun.run.parts import Parts
from metarun.run.tracking.sink import NoSink


class Source:
    """Numbers: those of its examples count from 0, those of its tasks from 1000."""

    info = SourceInfo((1,), 0, 1, objectives.regression, "a" * 64, {})

    def count(self, first: int, n: int) -> Iterator[Tensor]:
        while True:
            yield torch.arange(first, first + n, dtype=torch.float32)
            first += n

    def examples(self, split: str, first: int, n: int) -> Iterator[Examples]:
        return (Examples(x, x) for x in self.count(first, n))

    def episodes(self, split: str, first: int, n: int) -> Iterator[Batch]:
        for x in self.count(1000 + first, n):
            yield Batch(Examples(x[:, None, None], x), Examples(x[:, None, None], x), 0)

    def fingerprint(self, split: str, n_tasks: int) -> str:
        return split


class Pipeline(Staged):
    """Pre-trains for three outer steps, meta-learns for two by an optimizer of its own, and trains on tasks by both."""

    def __init__(self) -> None:
        super().__init__()
        self.theta, self.rate = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.drawn: list[tuple[str, list[float]]] = []
        self.entered: list[str] = []

    def build_optims(self, optim: Any) -> dict[str, Any]:
        return {"outer": optim([self.theta]), "meta": optim([self.rate], "meta")}

    def stages(self) -> list[Stage]:
        tasks = partial(Learner.train_stream, self)
        return [
            Stage(3, self._examples, partial(self._loss, "pre-train"), optims=("outer",)),
            Stage(2, tasks, partial(self._loss, "meta-learn"), enter=self._enter("meta-learn"), optims=("meta",)),
            Stage(1, tasks, partial(self._loss, "task-train"), enter=self._enter("task-train")),
        ]

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": batch.query.x.flatten()}

    def _examples(self, source: Any, step: int, n: int) -> Iterator[Examples]:
        return source.examples("train", 5 * step, 5)

    def _enter(self, stage: str) -> Any:
        return lambda optims: self.entered.append(f"{stage} with {', '.join(optims)}")

    def _loss(self, stage: str, batch: Any) -> tuple[Tensor, Metrics]:
        x = (batch.query if isinstance(batch, Batch) else batch).x.flatten()
        self.drawn.append((stage, x.tolist()))
        loss = self.theta + self.rate + torch.randn(())
        return loss, {"loss": loss.detach()}


def run_in(folder: Path) -> tuple[Pipeline, OfflineRun]:
    """A run of seven outer steps; rates halve with each step of their schedules."""
    folder.mkdir(exist_ok=True)
    learner, schedules = Pipeline(), []

    def optim(parameters: Any, name: str = "outer") -> torch.optim.Optimizer:
        made = torch.optim.SGD(parameters, lr=1.0)
        schedules.append(torch.optim.lr_scheduler.ExponentialLR(made, 0.5))
        return made

    parts = Parts(learner, Source(), learner.build_optims(optim), schedules, torch.device("cpu"), folder)
    return learner, OfflineRun(parts, 7, 2, 7, 2, 2, 2, 1, 1)


DRAWN = [
    ("pre-train", [0, 1, 2, 3, 4]),
    ("pre-train", [5, 6, 7, 8, 9]),
    ("pre-train", [10, 11, 12, 13, 14]),
    ("meta-learn", [1000, 1001]),
    ("meta-learn", [1002, 1003]),
    ("task-train", [1000, 1001]),
    ("task-train", [1002, 1003]),
]


def test_each_stage_has_its_steps_and_its_stream_and_the_last_one_the_rest(tmp_path: Path) -> None:
    learner, run = run_in(tmp_path)
    run.execute([], StopRequest())
    assert learner.drawn == DRAWN
    assert learner.entered == ["meta-learn with outer, meta", "task-train with outer, meta"]


def test_optimizers_step_in_their_stages_alone_and_schedules_with_them(tmp_path: Path) -> None:
    learner, run = run_in(tmp_path)
    run.execute([], StopRequest())
    rates = {name: optim.param_groups[0]["lr"] for name, optim in run.parts.optims.items()}
    assert rates == {"outer": 0.5**5, "meta": 0.5**4}
    assert learner.theta.item() == pytest.approx(-sum(0.5**step for step in range(5)))
    assert learner.rate.item() == pytest.approx(-sum(0.5**step for step in range(4)))


class StopsAfter(NoSink):
    def __init__(self, step: int, stop: StopRequest) -> None:
        self.step, self.stop = step, stop

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        if step == self.step:
            self.stop.signum = 15


@pytest.mark.parametrize("stopped_after", [1, 3, 4, 5, 6])
def test_a_run_is_taken_up_in_any_stage_and_between_two(tmp_path: Path, stopped_after: int) -> None:
    torch.manual_seed(0)
    whole, run = run_in(tmp_path / "whole")
    run.execute([], StopRequest())
    torch.manual_seed(0)
    first, run = run_in(tmp_path / "parted")
    stop = StopRequest()
    with pytest.raises(Interrupted):
        run.execute([StopsAfter(stopped_after, stop)], stop)
    second, run = run_in(tmp_path / "parted")
    run.restore()
    run.execute([], StopRequest())
    assert first.drawn + second.drawn == DRAWN
    assert first.entered + second.entered == whole.entered
    assert torch.equal(second.theta, whole.theta)
    assert torch.equal(second.rate, whole.rate)


def test_a_stage_without_steps_is_passed_over() -> None:
    learner = Pipeline()
    stages = learner.stages()
    learner.stages = lambda: [Stage(0, stages[0].stream, stages[0].loss), *stages[1:]]  # type: ignore[method-assign]
    drawn = [(batch.stage, batch.first) for batch in islice(learner.train_stream(Source(), 0, 2), 4)]
    assert drawn == [(1, True), (1, False), (2, True), (2, False)]


def test_gradients_of_optimizers_that_rest_do_not_add_up(tmp_path: Path) -> None:
    learner, run = run_in(tmp_path)
    optims = run.parts.optims
    for batch in islice(learner.train_stream(Source(), 0, 2), 6):
        learner.meta_step(batch, optims)
    assert (learner.theta.grad.item(), learner.rate.grad.item()) == (1, 1)
