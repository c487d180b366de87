"""The outer loop on a learner whose every number can be worked out: what it draws, when it acts, what it keeps."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import quick_if
from omegaconf import DictConfig
from test_contract import KINDS, PAIRS
from torch import Tensor, nn

from metarun.algos.base.learner import Learner
from metarun.core import objectives
from metarun.core.tasks import Batch, Examples, Metrics, SourceInfo, TaskSource
from metarun.run import checkpoint, offline, outer_steps, processes
from metarun.run.evaluation import evaluate
from metarun.run.interrupt import Interrupted, StopRequest
from metarun.run.offline import OfflineRun
from metarun.run.parts import Parts
from metarun.run.progress import Diverged, Progress, read_numbers
from metarun.run.team import Group, Lost
from metarun.run.tracking.sink import NoSink
from metarun.settings.build import build_parts, build_source
from metarun.settings.resolve import resolve

Settings = Callable[..., DictConfig]

PROTOCOL = {
    "steps": 7,
    "meta_batch_size": 8,
    "val_every": 2,
    "log_every": 3,
    "checkpoint_every": 5,
    "val_tasks": 6,
    "test_tasks": 10,
    "eval_batch_size": 4,
}
"""No two alike, and none divides the steps, so that each shows by itself."""

SKILL = {2: 0.3, 4: 0.9, 6: 0.5, 7: 0.7}
"""What the learner scores in validation and test after so many steps."""

FIRST = {"train": 0, "val": 100, "test": 200}
"""The number of a split's first task."""


class Numbered:
    """A source whose tasks are numbers, in each split from FIRST on; notes what it is asked for, and draws."""

    info = SourceInfo((1,), 0, 1, objectives.regression, "a" * 64, {})

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, int]] = []
        self.drawn: list[tuple[str, list[int]]] = []

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Batch]:
        self.asked.append((split, first, batch_size))
        return self._stream(split, FIRST[split] + first, batch_size)

    def fingerprint(self, split: str, n_tasks: int) -> str:
        return split

    def _stream(self, split: str, first: int, batch_size: int) -> Iterator[Batch]:
        while True:
            numbers = list(range(first, first + batch_size))
            self.drawn.append((split, numbers))
            x = torch.tensor(numbers, dtype=torch.float32)[:, None, None]
            yield Batch(Examples(x, x), Examples(x, x), 0)
            first += batch_size


class Counting(Learner):
    """Descends theta times the mean number of its tasks, and counts its steps, by which alone it scores.

    Its training loss is that mean number, its loss in validation and test the number of the task. With `noise` the
    gradient has a random number added.
    """

    def __init__(self, score: str = "accuracy", noise: bool = True) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.name, self.noise = score, noise
        self.heard: list[float] = []

    def meta_loss(self, batch: Any) -> tuple[Tensor, Metrics]:
        assert self.training
        self.steps += 1
        number, noise = batch.query.x.mean(), torch.randn(()) * self.noise
        self.heard.append(noise.item())
        return self.theta * (number + noise), {"loss": number, "noise": noise}

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        assert not self.training
        numbers = batch.query.x.flatten(1).mean(1)
        return {"loss": numbers, self.name: torch.full_like(numbers, SKILL[int(self.steps)])}


class LosesItsLoss(Counting):
    """Its sixth loss is no number; its weights stay finite."""

    def meta_loss(self, batch: Any) -> tuple[Tensor, Metrics]:
        loss, metrics = super().meta_loss(batch)
        return loss, metrics | {"loss": metrics["loss"] * (float("nan") if self.steps == 6 else 1.0)}


class LosesItsWeights(Counting):
    """Its fourth gradient is infinite; its losses stay finite."""

    def meta_loss(self, batch: Any) -> tuple[Tensor, Metrics]:
        loss, metrics = super().meta_loss(batch)
        return loss * (float("inf") if self.steps == 4 else 1.0), metrics


class StopsAfter(NoSink):
    """Asks the run to stop once it is told the validation of that step, as a signal then would."""

    def __init__(self, step: int, stop: StopRequest) -> None:
        self.step, self.stop = step, stop

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        if (step, split) == (self.step, "val"):
            self.stop.signum = signal.SIGINT


def run_in(folder: Path, learner: Counting | None = None, **changed: Any) -> OfflineRun:
    """A run by PROTOCOL under Adam, whose rate falls in a straight line from 0.7 by 0.1 a step."""
    folder.mkdir(exist_ok=True)
    learner = learner or Counting()
    adam = torch.optim.Adam(learner.parameters(), lr=0.7)
    falling = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, 7)
    parts = Parts(learner, Numbered(), {"outer": adam}, [falling], torch.device("cpu"), folder)
    return OfflineRun(parts, **PROTOCOL | changed)


def drawn(run: OfflineRun) -> list[tuple[str, list[int]]]:
    assert isinstance(run.parts.source, Numbered)
    return run.parts.source.drawn


def asked(run: OfflineRun) -> list[tuple[str, int, int]]:
    assert isinstance(run.parts.source, Numbered)
    return run.parts.source.asked


def lines(folder: Path, split: str | None = None) -> list[dict[str, Any]]:
    """metrics.jsonl, of one split or of all, without what depends on the clock."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clock = ("seconds", "tasks_per_second")
    return [{k: v for k, v in line.items() if k not in clock} for line in found if split in (None, line["split"])]


@pytest.fixture
def done(tmp_path: Path) -> OfflineRun:
    """A run that came to its end, in the folder `done`."""
    torch.manual_seed(0)
    run = run_in(tmp_path / "done")
    run.execute([], StopRequest())
    return run


@pytest.fixture
def resumed(tmp_path: Path) -> OfflineRun:
    """The same run in the folder `resumed`, stopped after its fourth step and taken up with nothing but its files."""
    torch.manual_seed(0)
    stop = StopRequest()
    with pytest.raises(Interrupted):
        run_in(tmp_path / "resumed").execute([StopsAfter(4, stop)], stop)
    torch.manual_seed(1)
    run = run_in(tmp_path / "resumed")
    run.restore()
    assert run.progress.step == 4
    run.execute([], StopRequest())
    return run


def test_validations_training_lines_and_checkpoints_come_when_their_settings_say_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """7 steps, of which every 2nd is validated, every 3rd ends a line and every 5th a checkpoint; the last has all."""
    saved, save = [], checkpoint.save

    def noted(path: Path, state: dict[str, Any]) -> None:
        saved.append((path.name, state["step"] if "step" in state else state["progress"]["step"]))
        save(path, state)

    monkeypatch.setattr(checkpoint, "save", noted)
    run = run_in(tmp_path)
    run.execute([], StopRequest())
    came = [(line["split"], line["step"]) for line in lines(tmp_path)]
    assert [step for split, step in came if split == "val"] == [2, 4, 6, 7]
    assert [step for split, step in came if split == "train"] == [3, 6, 7]
    assert [step for split, step in came if split == "test"] == [7]
    assert saved == [("best.pt", 2), ("best.pt", 4), ("last.pt", 5), ("last.pt", 7)]
    assert run.facts() | {"seconds": 0, "tasks_per_second": 0} == {
        "drawn": {"inputs": 7 * 8 * 2, "tasks": 7 * 8},  # a support and a query example a task
        "val": {"loss": 102.5, "accuracy": pytest.approx(0.9)},
        "directions": {"loss": "lower", "accuracy": "higher"},
        "best_step": 4,
        "saved_step": 7,
        "steps": 7,
        "seconds": 0,
        "tasks_per_second": 0,
    }


def test_without_val_every_a_run_is_validated_ten_times_at_most(tmp_path: Path) -> None:
    """23 steps over 10 is 2.3: every third step, and the last."""
    assert run_in(tmp_path, val_every=None, steps=23).val_every == 3
    assert run_in(tmp_path, val_every=None, steps=7).val_every == 1


def test_training_draws_from_train_validation_from_val_and_the_test_from_test(done: OfflineRun) -> None:
    """Step s trains on tasks 8s to 8s + 7 and no other; validation and test begin at their first task each time."""
    assert asked(done) == [("train", 0, 8), *[("val", 0, 4)] * 4, ("test", 0, 4)]

    def step(s: int) -> tuple[str, list[int]]:
        return "train", list(range(8 * s, 8 * s + 8))

    val = [("val", [100, 101, 102, 103]), ("val", [104, 105, 106, 107])]
    test = [("test", [200, 201, 202, 203]), ("test", [204, 205, 206, 207]), ("test", [208, 209, 210, 211])]
    steps = [step(0), step(1), *val, step(2), step(3), *val, step(4), step(5), *val, step(6), *val]
    assert drawn(done) == steps + test


def test_as_many_tasks_are_scored_as_asked_for_where_batches_do_not_divide_them(
    done: OfflineRun, tmp_path: Path
) -> None:
    """6 and 10 tasks by batches of 4: the last batch is cut. The loss of a task is its number: those of validation
    are 100 to 105, of mean 102.5, those of the test 200 to 209."""
    assert [line["loss"] for line in lines(tmp_path / "done", "val")] == [102.5] * 4
    with np.load(tmp_path / "done" / "test_tasks.npz") as tested:
        assert tested["loss"].tolist() == [*range(200, 210)]
        assert tested["index"].tolist() == [*range(10)]
        assert tested["accuracy"].shape == (10,)


@pytest.mark.parametrize(
    ("score", "best"), [("accuracy", 4), ("return", 4), ("log_likelihood", 4), ("mse", 2), ("accuracy@1", 2)]
)
def test_the_best_by_validation_is_kept_and_tested(tmp_path: Path, score: str, best: int) -> None:
    """Scores 0.3, 0.9, 0.5, 0.7 after 2, 4, 6, 7 steps: the best is neither the first nor the last if scores are
    maximised, and the first if they are minimised. Without a score that tells more the loss decides, which here is
    always the same: the first stays. The learner scores by its own count of steps, so the test shows whose it is."""
    run = run_in(tmp_path, Counting(score))
    outcome = run.execute([], StopRequest())
    assert run.progress.best_step == best
    assert run.progress.best[score] == pytest.approx(SKILL[best])
    assert outcome["test"][score]["mean"] == pytest.approx(SKILL[best])
    assert torch.load(tmp_path / "checkpoints" / "best.pt")["learner"]["steps"] == best


def test_schedules_take_a_step_with_each_outer_step(done: OfflineRun, tmp_path: Path) -> None:
    """From 0.7 by 0.1 a step: 0.4 after 3, 0.1 after 6, 0 after 7."""
    rates = [line["lr_outer"] for line in lines(tmp_path / "done", "train")]
    assert rates == pytest.approx([0.4, 0.1, 0.0], abs=1e-7)


def test_a_training_line_is_the_mean_of_all_steps_since_the_one_before(done: OfflineRun, tmp_path: Path) -> None:
    """Step s has the loss 8s + 3.5: steps 0 to 2 have the mean 11.5, steps 3 to 5 35.5, step 6 51.5."""
    assert [line["loss"] for line in lines(tmp_path / "done", "train")] == [11.5, 35.5, 51.5]


def test_a_resumed_run_takes_up_the_stream_of_tasks_where_it_stopped(resumed: OfflineRun) -> None:
    """After 4 steps of 8 tasks the next task is number 32."""
    assert asked(resumed)[0] == ("train", 32, 8)
    assert [numbers[0] for split, numbers in drawn(resumed) if split == "train"] == [32, 40, 48]


def test_a_resumed_runs_schedule_goes_on(resumed: OfflineRun, tmp_path: Path) -> None:
    rates = [line["lr_outer"] for line in lines(tmp_path / "resumed", "train")]
    assert rates == pytest.approx([0.4, 0.1, 0.0], abs=1e-7)


def test_a_resumed_runs_noise_goes_on(done: OfflineRun, resumed: OfflineRun) -> None:
    """That of steps 5 to 7 is what it would have been, though the generator was seeded otherwise in between."""
    assert isinstance(done.parts.learner, Counting)
    assert isinstance(resumed.parts.learner, Counting)
    assert resumed.parts.learner.heard == done.parts.learner.heard[4:]


def test_a_resumed_runs_optimizer_keeps_its_moments(done: OfflineRun, resumed: OfflineRun) -> None:
    (whole,), (parted,) = (run.parts.optims["outer"].state.values() for run in (done, resumed))
    assert int(parted["step"]) == 7
    assert torch.equal(parted["exp_avg"], whole["exp_avg"])
    assert torch.equal(parted["exp_avg_sq"], whole["exp_avg_sq"])


def test_a_resumed_run_ends_with_the_numbers_of_one_that_was_never_stopped(
    done: OfflineRun, resumed: OfflineRun, tmp_path: Path
) -> None:
    """It was stopped between two training lines, with its best behind it."""
    assert lines(tmp_path / "resumed") == lines(tmp_path / "done")
    whole, parted = (torch.load(tmp_path / name / "checkpoints" / "last.pt") for name in ("done", "resumed"))
    assert torch.equal(parted["learner"]["theta"], whole["learner"]["theta"])
    assert (resumed.progress.best_step, resumed.progress.best) == (done.progress.best_step, done.progress.best)


def test_a_restored_run_has_all_that_the_checkpoint_has_of_the_run_that_stopped(tmp_path: Path) -> None:
    """After step 4, of which the line after step 3 has one left over: nothing that is compared is what a new run has.
    The facts are those of the checkpoint, before another is written."""
    stop = StopRequest()
    stopped = run_in(tmp_path)
    stopped.tracking_id, stopped.progress.skipped = "abc", 3
    with pytest.raises(Interrupted):
        stopped.execute([StopsAfter(4, stop)], stop)
    expected = state_of(stopped)
    restored, new = run_in(tmp_path), run_in(tmp_path)
    restored.restore()
    assert state_of(restored) == expected
    assert not [key for key, value in state_of(new).items() if value == expected[key]]


def state_of(run: OfflineRun) -> dict[str, Any]:
    """What a run knows of how far it is, each part by itself; of times, the one that has gone by."""
    (optim,), (schedule,) = run.parts.optims.values(), run.parts.schedules
    parts = {"weights": run.parts.learner.state_dict(), "rate": schedule.state_dict(), "moments": optim.state_dict()}
    found: dict[str, Any] = {name: repr(part) for name, part in parts.items()}
    found |= {f"progress {name}": value for name, value in vars(run.progress).items()}
    known = ("val", "best_step", "saved_step", "steps")
    return found | {name: run.facts()[name] for name in known} | {"tracking id": run.tracking_id}


def test_all_of_the_progress_of_a_run_is_in_its_checkpoint(resumed: OfflineRun, tmp_path: Path) -> None:
    saved = checkpoint.load(tmp_path / "resumed" / "checkpoints" / "last.pt")["progress"]
    assert saved == vars(resumed.progress)
    assert set(saved) == set(Progress.__dataclass_fields__)


def test_a_resumed_run_that_fails_before_its_next_checkpoint_says_from_which_one_it_goes_on(tmp_path: Path) -> None:
    """It was stopped after step 4; the loss of step 6 is no number."""
    stop = StopRequest()
    with pytest.raises(Interrupted):
        run_in(tmp_path, LosesItsLoss(), checkpoint_every=100).execute([StopsAfter(4, stop)], stop)
    run = run_in(tmp_path, LosesItsLoss(), checkpoint_every=100)
    run.restore()
    with pytest.raises(Diverged, match="at outer step 6"):
        run.execute([], StopRequest())
    assert (run.facts()["saved_step"], run.facts()["steps"]) == (4, 6)


@pytest.mark.parametrize("stopped_after", [None, 2, 4, 6])
def test_time_is_counted_by_what_it_goes_by_for_and_goes_on_in_a_resumed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_after: int | None
) -> None:
    """By a clock that is half a second further each time it is looked at, before and after: 7 steps take 3.5 s, 4
    validations 2 and the test 0.5, together 6. 7 steps of 8 tasks are 56 tasks in 3.5 s of training, 16 a second."""
    clock = iter(range(1000))
    monkeypatch.setattr(offline, "time", SimpleNamespace(perf_counter=lambda: next(clock) / 2))
    run, stop = run_in(tmp_path), StopRequest()
    if stopped_after:
        with pytest.raises(Interrupted):
            run.execute([StopsAfter(stopped_after, stop)], stop)
        run = run_in(tmp_path)
        run.restore()
    run.execute([], StopRequest())
    assert run.facts()["seconds"] == {"train": 3.5, "val": 2.0, "test": 0.5, "total": 6.0}
    assert run.facts()["tasks_per_second"] == 16
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    speeds = [(line["step"], line["seconds"], line["tasks_per_second"]) for line in written if line["split"] == "train"]
    assert speeds == [(3, 1.5, 16), (6, 3, 16), (7, 3.5, 16)]


class AsksAt(Counting):
    """Does something when it is about to score the task of that number."""

    def __init__(self, number: int, do: Callable[[], None]) -> None:
        super().__init__()
        self.number, self.do = number, do

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        if self.number in batch.query.x:
            self.do()
        return super().evaluate(batch)


def test_the_time_that_a_gpu_needs_for_training_is_counted_as_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It works behind the host's back; who reads a number waits for it, and nobody reads one before it is wanted."""
    now = 0.0

    def wait(*arguments: Any) -> Any:
        nonlocal now
        now += 1
        return read_numbers(*arguments)

    monkeypatch.setattr(outer_steps, "read_numbers", wait)
    monkeypatch.setattr(offline, "time", SimpleNamespace(perf_counter=lambda: now))
    run = run_in(tmp_path)
    run.parts.device = SimpleNamespace(type="cuda")  # type: ignore[assignment]
    run.execute([], StopRequest())
    assert run.progress.train_seconds == 6  # after steps 2, 3, 4, 5, 6, 7, where something is due
    assert run.progress.val_seconds == 0


def test_a_resumed_runs_optimizer_makes_no_device_wait(done: OfflineRun, tmp_path: Path) -> None:
    """Adam reads its count of steps on the host, so the checkpoint's must not come back on the device."""
    run = run_in(tmp_path / "done")
    run.parts.learner.to("meta")
    run.parts.device = torch.device("meta")
    adam = torch.optim.Adam(run.parts.learner.parameters(), lr=0.7)
    run.parts.optims["outer"] = adam
    run.restore()
    for parameter in run.parts.learner.parameters():
        parameter.grad = torch.zeros_like(parameter)
    adam.step()
    assert [state["step"].device.type for state in adam.state.values()] == ["cpu"]


def test_a_signal_in_a_validation_waits_for_its_end_and_for_the_checkpoint(tmp_path: Path) -> None:
    """In the first batch of two of the first validation: the best by validation depends on all of it."""
    stop = StopRequest()
    run = run_in(tmp_path, AsksAt(100, lambda: setattr(stop, "signum", signal.SIGTERM)))
    with pytest.raises(Interrupted, match="SIGTERM"):
        run.execute([], stop)
    assert [(line["split"], line["step"]) for line in lines(tmp_path)] == [("val", 2)]
    assert lines(tmp_path)[0]["loss"] == 102.5
    facts = run.facts()
    assert (facts["steps"], facts["best_step"], facts["saved_step"]) == (2, 2, 2)


def test_a_signal_in_the_test_ends_it_with_the_next_batch_and_a_resumed_run_tests_from_the_start(
    tmp_path: Path,
) -> None:
    """In the second batch of three of the test of 10 tasks, by fours: the third is not scored, and nothing is kept."""
    stop = StopRequest()
    run = run_in(tmp_path, AsksAt(204, lambda: setattr(stop, "signum", signal.SIGINT)))
    with pytest.raises(Interrupted, match="SIGINT"):
        run.execute([], stop)
    assert [numbers[0] for split, numbers in drawn(run) if split == "test"] == [200, 204]
    assert not (tmp_path / "test_tasks.npz").exists()
    assert not lines(tmp_path, "test")
    again = run_in(tmp_path)
    again.restore()
    assert again.execute([], StopRequest())["test"]["loss"]["mean"] == 204.5
    assert {split for split, _ in drawn(again)} == {"test"}
    assert again.facts()["saved_step"] == 7


def test_a_checkpoint_that_is_asked_for_is_written_after_the_next_step_and_the_run_goes_on(tmp_path: Path) -> None:
    """As SIGTERM does under a launcher that requeues: asked for in the validation after step 2, and once."""
    stop = StopRequest()
    saved: list[int] = []

    class Notes(NoSink):
        def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
            last = tmp_path / "checkpoints" / "last.pt"
            saved.append(checkpoint.load(last)["progress"]["step"] if last.exists() else 0)

    run = run_in(tmp_path, AsksAt(100, lambda: setattr(stop, "save", not run.progress.best)), log_every=1)
    assert run.execute([Notes(None)], stop)["test"]["accuracy"]["mean"] == pytest.approx(0.9)
    assert [(line["split"], line["step"]) for line in lines(tmp_path)] == [
        ("train", 1), ("train", 2), ("val", 2), ("train", 3), ("train", 4), ("val", 4), ("train", 5), ("train", 6),
        ("val", 6), ("train", 7), ("val", 7), ("test", 7),
    ]  # fmt: skip
    assert saved == [0, 0, 0, 2, 2, 2, 2, 5, 5, 5, 5, 7]


def test_a_run_is_not_resumed_on_another_split(done: OfflineRun, tmp_path: Path) -> None:
    """What is there is left as it is: the learner of a refused run is the new one."""
    run = run_in(tmp_path / "done")
    run.parts.source.info = replace(run.parts.source.info, split_sha256="b" * 64)
    with pytest.raises(ValueError, match=r"last\.pt was trained on another split of the data: a{12}, not b{12}"):
        run.restore()
    assert (run.parts.learner.state_dict()["steps"], run.progress.step) == (0, 0)


def test_a_loss_that_is_no_number_stops_the_run_with_its_last_checkpoint_whole(tmp_path: Path) -> None:
    """The loss of step 6 is NaN: steps 1 to 5 are saved, no line and no validation of step 6 is written, and nothing
    is tested."""
    run = run_in(tmp_path, LosesItsLoss())
    with pytest.raises(Diverged, match="loss is nan at outer step 6"):
        run.execute([], StopRequest())
    last = checkpoint.load(tmp_path / "checkpoints" / "last.pt")
    assert (last["progress"]["step"], int(last["learner"]["steps"]), run.facts()["saved_step"]) == (5, 5, 5)
    assert [(line["split"], line["step"]) for line in lines(tmp_path)] == [("val", 2), ("train", 3), ("val", 4)]
    assert "test" not in {split for split, _ in drawn(run)}
    assert not (tmp_path / "test_tasks.npz").exists()


class Leaps(Counting):
    """An infinite weight, with finite gradients: after the second step."""

    def meta_step(self, batch: Any, optims: dict[str, Any]) -> Metrics:
        metrics = super().meta_step(batch, optims)
        if self.steps == 2:
            self.theta.data.fill_(float("inf"))
        return metrics


def test_a_weight_that_is_no_number_is_not_saved(tmp_path: Path) -> None:
    """It is so from step 2 on; the first checkpoint would be that of step 5."""
    with pytest.raises(Diverged, match="a weight is not a finite number after outer step 5"):
        run_in(tmp_path, Leaps()).execute([], StopRequest())
    assert not (tmp_path / "checkpoints" / "last.pt").exists()


def test_an_infinite_gradient_stops_the_run_before_the_weights_move(tmp_path: Path) -> None:
    run = run_in(tmp_path, LosesItsWeights())
    with pytest.raises(Diverged, match="the gradient of theta is not finite at outer step 4"):
        run.execute([], StopRequest())
    assert np.isfinite(run.parts.learner.theta.item())
    assert run.facts()["diverged"] == {"step": 4, "task": None}  # by themselves, its tasks are harmless


def test_of_steps_that_are_read_together_the_one_that_diverged_is_named() -> None:
    """Of steps 5, 6 and 7, read after the last, the second."""
    pending = [{"loss": torch.tensor(value)} for value in (1.0, float("inf"), 2.0)]
    with pytest.raises(Diverged, match="loss is inf at outer step 6"):
        read_numbers(pending, 7)


def fresh(config: DictConfig, group: Group | None = None) -> Parts:
    return build_parts(resolve(config), Path(), group)


def source_of(config: DictConfig) -> TaskSource:
    return build_source(resolve(config), torch.device("cpu"))


@pytest.mark.parametrize(
    ("data", "train", "test"), [("glyphs", (6, 12, 24), (5, 5, 15)), ("sinusoid", (0, 2, 4), (0, 1, 3))]
)
def test_training_tasks_have_the_shape_of_data_train_and_all_others_that_of_data(
    settings: Settings, data: str, train: tuple[int, ...], test: tuple[int, ...]
) -> None:
    """n_way, and how many support and query examples: in training 6 ways, 2 shots, 4 queries, else 5, 1 and 3; where
    tasks are functions there are no ways to multiply by."""
    words = ["data.k_shot=1", "data.n_query=3", "data.train.k_shot=2", "data.train.n_query=4"]
    words += ["algo=protonet", "data.n_way=5", "data.train.n_way=6"] if data == "glyphs" else []
    source = source_of(settings(f"data={data}", *words))
    for split, expected in {"train": train, "val": test, "test": test}.items():
        batch = next(source.episodes(split, 0, 1))
        assert (batch.n_way, batch.support.y.shape[1], batch.query.y.shape[1]) == expected, split


@pytest.mark.parametrize("data", quick_if(("glyphs", "sinusoid", "moons", "gp"), KINDS))
def test_the_seed_decides_training_tasks_and_data_eval_seed_all_others(settings: Settings, data: str) -> None:
    algo = next(algo for algo, other in PAIRS if other == data)

    def tasks(split: str, *words: str) -> Tensor:
        batch = next(source_of(settings(f"algo={algo}", f"data={data}", *words)).episodes(split, 0, 3))
        return torch.cat([batch.query.x.flatten(), batch.query.y.flatten()])

    for split, decides, does_not in (
        ("train", "seed=4", "data.eval_seed=5"),
        ("val", "data.eval_seed=5", "seed=4"),
        ("test", "data.eval_seed=5", "seed=4"),
    ):
        assert not torch.equal(tasks(split), tasks(split, decides)), split
        assert torch.equal(tasks(split), tasks(split, does_not)), split


def test_the_noise_of_a_run_is_of_its_seed_and_not_of_how_many_weights_were_drawn(settings: Settings) -> None:
    def noise(*words: str) -> Tensor:
        fresh(settings(*words))
        return torch.rand(3)

    assert torch.equal(noise("backbone.hidden=4"), noise("backbone.hidden=5"))
    assert not torch.equal(noise("seed=4"), noise("seed=5"))


class NotingRecorder:
    """Records nothing, and notes under what each call would have been recorded, shapes aside."""

    after = 0

    def __init__(self) -> None:
        self.uses: list[Any] = []

    def __call__(self, name: str, function: Callable[..., Any], *inputs: Any, key: Any) -> Any:
        self.uses.append((name, key))
        return function(*inputs)


def test_an_outer_step_and_a_test_of_the_same_shapes_are_never_answered_by_one_recording(settings: Settings) -> None:
    """Nor training and testing mode, in which MAML takes other numbers of steps, nor other numbers of classes."""
    parts = fresh(settings("backbone.hidden=4", "backbone.layers=2"))
    learner, batch = parts.learner, next(parts.source.episodes("val", 0, 1))
    learner.recorder = recorder = NotingRecorder()
    learner.train().meta_step(batch, parts.optims)
    learner.train().evaluate(batch)
    learner.eval().evaluate(batch)
    learner.eval().evaluate(batch._replace(n_way=6))
    assert len(set(recorder.uses)) == len(recorder.uses) == 4


def in_two(work: Callable[[Group], Any]) -> list[Any]:
    """What `work` comes to in each of two groups that add up as processes do, and are threads of this one."""
    both = threading.Barrier(2, timeout=60)
    said: list[Tensor] = [torch.empty(0)] * 2

    class Thread(Group):
        def sum(self, flat: Tensor) -> None:
            said[self.rank] = flat.clone()
            both.wait()
            total = said[0] + said[1]
            both.wait()
            flat.copy_(total)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(work, [Thread(0, 2), Thread(1, 2)]))


def test_processes_descend_the_mean_over_all_tasks_whatever_their_shares() -> None:
    """Tasks 0 to 4, of which one has 0 and 1 and the other 2, 3 and 4: the shares' means are 0.5 and 3, their mean by
    tasks is 2, their plain mean 1.75 and their sum 3.5. By SGD with rate 1 both come from 0 to -2."""
    batch = next(Numbered().episodes("train", 0, 5))

    def work(group: Group) -> tuple[float, float]:
        learner = Counting(noise=False)
        optim = torch.optim.SGD(learner.parameters(), lr=1.0)
        group.tie(optim)
        _, metrics = group.outer_step(learner.train(), None, batch, {"outer": optim}, 0)
        return learner.theta.item(), metrics["loss"].item()

    assert in_two(work) == [(-2.0, 2.0), (-2.0, 2.0)]


class Averaging(Counting):
    """It adds the mean number of its tasks to a buffer, as running averages are added to."""

    def __init__(self) -> None:
        super().__init__(noise=False)
        self.register_buffer("average", torch.ones(()))

    def meta_loss(self, batch: Any) -> tuple[Tensor, Metrics]:
        self.average += batch.query.x.mean()
        return super().meta_loss(batch)


def test_buffers_move_by_the_mean_of_how_they_move_in_each_process() -> None:
    """Tasks 0 to 4 as above: from 1 by 0.5 in the one and by 3 in the other, by tasks by 2."""
    batch = next(Numbered().episodes("train", 0, 5))

    def work(group: Group) -> tuple[float, int]:
        learner = Averaging()
        group.outer_step(learner.train(), None, batch, {}, 0)
        return learner.average.item(), int(learner.steps)

    assert in_two(work) == [(3.0, 1), (3.0, 1)]


def trained() -> Counting:
    """A learner that has come to the end of its 7 steps, in training mode."""
    learner = Counting().train()
    learner.steps += 7
    return learner


@pytest.mark.parametrize(("rank", "numbers"), [(0, [100, 101, 102]), (1, [103, 104, 105, 106])])
def test_each_process_scores_its_own_share_of_the_tasks_and_no_other(
    monkeypatch: pytest.MonkeyPatch, rank: int, numbers: list[int]
) -> None:
    """7 tasks for two are 3 and 4, by batches of 3. Where nothing is added up, the others' scores are 0."""
    monkeypatch.setattr(Group, "sum", lambda self, flat: None)
    source = Numbered()
    scores = evaluate(trained(), source, "val", 7, 3, StopRequest(), Group(rank, 2))
    assert source.asked == [("val", numbers[0] - 100, 3)]
    assert [first for _, (first, *_) in source.drawn] == numbers[::3]
    assert scores["loss"].tolist() == [number if number in numbers else 0 for number in range(100, 107)]


@pytest.mark.parametrize("n_tasks", [2, 6, 7])
def test_all_processes_get_the_scores_of_all_tasks_in_the_order_of_the_tasks(n_tasks: int) -> None:
    """As one process gets them; also where one has a single task, less than a batch."""

    def work(group: Group) -> list[float]:
        return evaluate(trained(), Numbered(), "test", n_tasks, 3, StopRequest(), group)["loss"].tolist()

    whole = list(range(200, 200 + n_tasks))
    assert [*in_two(work), work(Group())] == [whole] * 3


@pytest.mark.parametrize("training", [True, False])
def test_a_learner_is_scored_in_evaluation_mode_and_left_as_it_was_also_by_a_stop(training: bool) -> None:
    """`Counting` asserts the mode that it is scored in."""
    learner, stop = trained().train(training), StopRequest()
    evaluate(learner, Numbered(), "val", 3, 2, stop)
    assert learner.training == training
    stop.signum = signal.SIGINT
    with pytest.raises(Interrupted):
        evaluate(learner, Numbered(), "val", 3, 2, stop)
    assert learner.training == training


class FailsAtATask(Counting):
    """Its loss is no number in task 101 of validation, the second."""

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        scores = super().evaluate(batch)
        return scores | {"loss": scores["loss"].masked_fill(scores["loss"] == 101, float("inf"))}


def test_scores_that_are_no_numbers_are_told(caplog: pytest.LogCaptureFixture) -> None:
    learner = FailsAtATask()
    learner.steps += 2
    evaluate(learner, Numbered(), "val", 5, 2, StopRequest())
    assert caplog.messages == ["loss is not a finite number in 1 of 5 val tasks"]


def test_two_processes_run_as_one_does_and_only_the_first_writes(done: OfflineRun, tmp_path: Path) -> None:
    """Without noise: the mean over 8 tasks is that over two shares of 4, exactly. A process may not read the best
    checkpoint before the first one has written it."""
    alone = run_in(tmp_path / "alone", Counting(noise=False))
    expected = alone.execute([], StopRequest())
    told: list[tuple[int, str]] = []

    def work(group: Group) -> tuple[dict[str, Any], OfflineRun]:
        class Tells(NoSink):
            def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
                told.append((group.rank, split))

        run = run_in(tmp_path / "both", Counting(noise=False))
        run.parts.group = group
        group.tie(run.parts.optims["outer"])
        return run.execute([Tells(None)], StopRequest()), run

    (outcome, first), (other, second) = in_two(work)
    assert outcome == other == expected
    for run in (first, second):
        assert torch.equal(run.parts.learner.theta, alone.parts.learner.theta)
        assert (run.progress.best, run.progress.best_step) == (alone.progress.best, 4)
    assert lines(tmp_path / "both") == lines(tmp_path / "alone")
    assert (first.saved_step, second.saved_step, second.progress.metrics_bytes) == (7, 7, 0)
    assert told == [(0, line["split"]) for line in lines(tmp_path / "alone")]


def test_a_process_waits_for_the_best_checkpoint_before_it_reads_it(
    done: OfflineRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a second one, of a run that is trained to its end, to which the first has something to write yet."""
    done.parts.group = Group(1, 2)
    best = done.folder.best
    best.rename(best.with_suffix(".written later"))
    monkeypatch.setattr(Group, "sum", lambda self, flat: None)
    monkeypatch.setattr(Group, "wait", lambda self: best.with_suffix(".written later").rename(best))
    assert done.execute([], StopRequest())["test"]["loss"]["n_tasks"] == 10


def test_processes_clip_the_mean_gradient_not_each_its_own(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of three tasks is this process's, and the other two have no gradient: the mean is a third of its own. That
    is longer than 0.001, which it is cut to; its own, cut to 0.001 first, would come to a third of that."""
    group = Group(0, 2)
    monkeypatch.setattr(group, "sum", lambda flat: None)
    words = ["algo=protonet", "optim=sgd", "optim.lr=1", "optim.clip_norm=0.001", "optim/schedule=constant"]
    parts = fresh(settings(*words), group)
    before = [value.detach().clone() for value in parts.learner.parameters()]
    group.outer_step(parts.learner.train(), None, next(parts.source.episodes("train", 0, 3)), parts.optims, 0)
    now = parts.learner.parameters()
    moved = torch.cat([(value.detach() - old).flatten() for value, old in zip(now, before, strict=True)])
    assert moved.norm().item() == pytest.approx(0.001, rel=1e-3)


def test_each_process_and_each_step_has_noise_of_its_own_which_a_resumed_run_draws_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Group, "sum", lambda self, flat: None)
    batch = next(Numbered().episodes("train", 0, 2))

    def noise(rank: int, step: int, seed: int = 0) -> float:
        learner = Counting()
        Group(rank, 2, seed).outer_step(learner.train(), None, batch, {}, step)
        return learner.heard[0]

    assert len({noise(0, 0), noise(1, 0), noise(0, 1), noise(1, 1), noise(0, 0, seed=1)}) == 5
    assert noise(1, 1) == noise(1, 1)


def test_a_process_that_ends_before_all_are_there_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.time, "sleep", lambda _: pytest.fail("goes on waiting"))
    dead = SimpleNamespace(describe_death=lambda: "process 1 ended with exit code 1")
    with pytest.raises(Lost, match="another process of this run has ended"):
        processes._connect(torch.distributed.HashStore(), 0, 2, [dead])
