"""Losses and gradients that are not finite: noticed in time, traced to a task, skipped where that is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import metarun, results_of
from torch import Tensor, nn

from metarun.algos.base.learner import Learner
from metarun.core import objectives
from metarun.core.tasks import Batch, Examples, Metrics, SourceInfo
from metarun.run.finite import GradientWatch, NotFinite, examine
from metarun.run.interrupt import StopRequest
from metarun.run.offline import OfflineRun
from metarun.run.outer_steps import MOST_SKIPS
from metarun.run.parts import Parts
from metarun.run.progress import Diverged

BATCH = 4


class Numbers:
    """Task i of the stream is the number i; those of `bad` are NaN."""

    info = SourceInfo((1,), 0, 1, objectives.regression, "a" * 64, {})

    def __init__(self, bad: set[int]) -> None:
        self.bad = bad

    def episodes(self, split: str, first: int, n: int) -> Iterator[Batch]:
        while True:
            numbers = [
                float("nan") if i in self.bad and split == "train" else float(i) for i in range(first, first + n)
            ]
            x = torch.tensor(numbers)[:, None, None]
            yield Batch(Examples(x, x), Examples(x, x), 0)
            first += n

    def fingerprint(self, split: str, n_tasks: int) -> str:
        return split


class Averages(Learner):
    """Descends theta times the mean of its tasks, and keeps a running sum of them in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(()))
        self.register_buffer("sum", torch.zeros(()))

    def meta_loss(self, batch: Any) -> tuple[Tensor, Metrics]:
        self.sum += batch.query.x.sum()
        loss = self.theta * batch.query.x.mean()
        return loss, {"loss": loss.detach()}

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": batch.query.x.flatten()}


def run_in(folder: Path, bad: set[int], **changed: Any) -> OfflineRun:
    folder.mkdir(exist_ok=True)
    learner = Averages()
    sgd = torch.optim.SGD(learner.parameters(), lr=1.0)
    halving = torch.optim.lr_scheduler.ExponentialLR(sgd, 0.5)
    parts = Parts(learner, Numbers(bad), {"outer": sgd}, [halving], torch.device("cpu"), folder)
    protocol = dict(steps=6, meta_batch_size=BATCH, val_every=6, val_tasks=2, test_tasks=2, eval_batch_size=2,
                    checkpoint_every=2, log_every=1)  # fmt: skip
    return OfflineRun(parts, **protocol | changed)  # type: ignore[arg-type]


def test_the_task_and_the_step_are_named_and_the_last_good_weights_are_kept(tmp_path: Path) -> None:
    """Task 14 is the third of the fourth outer step."""
    run = run_in(tmp_path, {14})
    with pytest.raises(Diverged, match=r"loss is nan at outer step 4, task 2 of 4"):
        run.execute([], StopRequest())
    assert run.facts()["diverged"] == {"step": 4, "task": 2}
    assert (run.facts()["steps"], run.facts()["saved_step"]) == (4, 2)
    assert run.parts.learner.theta.isfinite()


def test_skipped_steps_are_counted_and_leave_no_trace(tmp_path: Path) -> None:
    """Steps 2 and 4 hold a NaN. The others descend by the means 1.5, 9.5, 17.5, 21.5 at rates 1, 1/2, 1/4, 1/8."""
    run = run_in(tmp_path, {5, 14, 15}, on_nan="skip")
    run.execute([], StopRequest())
    assert run.facts()["skipped_steps"] == 2
    learner = run.parts.learner
    assert learner.state_dict()["theta"].item() == -(1.5 + 9.5 / 2 + 17.5 / 4 + 21.5 / 8)
    assert learner.state_dict()["sum"].item() == BATCH * (1.5 + 9.5 + 17.5 + 21.5)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6, 6, 6]
    assert "diverged" not in run.facts()


def test_a_resumed_run_goes_on_with_the_count(tmp_path: Path) -> None:
    run = run_in(tmp_path, {5, 14}, on_nan="skip")
    run.advance(5)
    assert run.progress.skipped == 2
    run_in(tmp_path, {5}, on_nan="skip", steps=2).execute([], StopRequest())
    again = run_in(tmp_path, {5, 14}, on_nan="skip")
    again.restore()
    again.execute([], StopRequest())
    assert again.facts()["skipped_steps"] == 2


def test_steps_that_are_skipped_count_in_a_row(tmp_path: Path) -> None:
    """More of them than a run may skip in a row, with one between that is made."""
    half = MOST_SKIPS // 2 + 5
    bad = set(range(2 * BATCH * half + BATCH)) - set(range(BATCH * half, BATCH * half + BATCH))
    run = run_in(tmp_path, bad, on_nan="skip", steps=2 * half + 2)
    run.execute([], StopRequest())
    assert run.facts()["skipped_steps"] == 2 * half > MOST_SKIPS


def test_a_run_that_skips_on_and_on_ends(tmp_path: Path) -> None:
    run = run_in(tmp_path, set(range(4000)), on_nan="skip", steps=1000)
    with pytest.raises(Diverged, match=f"at outer step {MOST_SKIPS + 1}, task 0 of 4"):
        run.execute([], StopRequest())


def test_an_outer_step_is_given_up_only_before_any_optimizer_has_moved() -> None:
    """What is wrong by then would leave half of a step; the next step looks anew."""
    learner = Averages()
    learner.other = nn.Parameter(torch.ones(()))
    first, second = (torch.optim.SGD([weight], 1.0) for weight in (learner.theta, learner.other))
    watch = GradientWatch(learner, {"first": first, "second": second}, skip=True)

    def give(one: float, other: float) -> None:
        learner.theta.grad, learner.other.grad = torch.tensor(one), torch.tensor(other)

    watch.begin()
    give(1.0, 1.0)
    first.step()
    give(1.0, float("inf"))
    second.step()
    assert (learner.theta.item(), learner.other.item()) == (-1, -float("inf"))
    watch.begin()
    for optim in (first, second):
        with pytest.raises(NotFinite):
            optim.step()
    assert learner.theta.item() == -1


def test_examining_a_task_changes_nothing(tmp_path: Path) -> None:
    learner = Averages()
    learner.theta.grad = torch.tensor(7.0)
    batch = next(Numbers({1}).episodes("train", 0, 2))
    good, bad = (examine(learner, batch.tasks(i, i + 1)) for i in (0, 1))
    assert (good.problem, bad.problem) == ("", "loss is nan")
    assert (good.gradient, good.metrics) == (0.0, {"loss": 0.0})
    assert (learner.sum.item(), learner.theta.grad.item()) == (0.0, 7.0)


def test_advancing_comes_to_the_weights_and_the_batch_of_that_step(tmp_path: Path) -> None:
    run = run_in(tmp_path, set())
    batch = run.advance(3)
    assert batch.query.x.flatten().tolist() == [8, 9, 10, 11]
    assert run.parts.learner.theta.item() == -(1.5 + 5.5 / 2)
    assert not (tmp_path / "metrics.jsonl").exists()


BLOWN = ["algo=maml", "data=sinusoid", "run.steps=30", "run.meta_batch_size=3", "run.val_tasks=2", "run.test_tasks=2"]
BLOWN += ["run.compile=false", "threads=1", "logger=none", "run.log_every=1", "run.checkpoint_every=2", "optim=sgd"]
BLOWN += ["optim.lr=1e6", "optim/schedule=constant"]


@pytest.mark.slow
def test_the_printed_command_makes_the_episode_again(tmp_path: Path, cache: Path) -> None:
    code, out, error = metarun(*BLOWN, "hydra.run.dir=r", cwd=tmp_path, cache=cache)
    assert (code, "Traceback" in out + error) == (1, False)
    where = results_of(tmp_path / "r")["diverged"]
    assert where["task"] is not None
    printed = f"metarun replay r --step {where['step']} --task {where['task']}"
    assert printed in out
    before = {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()}
    code, out, error = metarun(*printed.split()[1:], cwd=tmp_path, cache=cache)
    assert code == 0, error
    line = next(line for line in out.splitlines() if line.split()[:1] == [str(where["task"])])
    assert "not finite" in line or "nan" in line or "inf" in line
    new = {path for path in (tmp_path / "r").rglob("*") if path.is_file()} - set(before)
    assert {path.name for path in new} == {f"step{where['step']}-task{where['task']}.npz"}
    assert all(path.read_bytes() == content for path, content in before.items() if path.name != ".lock")
    code, out, _ = metarun("replay", "r", "--step", "1", cwd=tmp_path, cache=cache)
    assert code == 0
    assert "0 outer steps from the start, then the tasks of step 1" in out
    assert [line.split()[0] for line in out.splitlines() if len(line.split()) == 4][1:] == ["0", "1", "2"]


@pytest.fixture(scope="module")
def blown(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The folder of a run `r` whose loss is no number at outer step 30."""
    folder = tmp_path_factory.mktemp("blown")
    metarun(*BLOWN, "hydra.run.dir=r", cwd=folder, cache=cache)
    return folder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "--step", "1"], "nowhere is not the folder of a run"),
        (["r", "--step", "0"], "--step 0: the outer steps of r are 1 to 30"),
        (["r", "--step", "31"], "--step 31: the outer steps of r are 1 to 30"),
        (["r", "--step", "30"], "outer step 30 is not reached: loss is"),
        (["r", "--step", "1", "--task", "3"], "--task 3: outer step 1 has the tasks 0 to 2"),
    ],
)
def test_what_cannot_be_replayed_is_refused(blown: Path, cache: Path, words: list[str], message: str) -> None:
    code, out, error = metarun("replay", *words, cwd=blown, cache=cache)
    assert (code, message in out + error) == (2, True), out + error
