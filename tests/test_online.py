"""run=online: exact regret on quadratics, what is scored when, and the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import metarun, results_of, stop_and_resume
from torch import Tensor

from metarun.algos.base.learner import Learner
from metarun.core.batches import join_tasks
from metarun.core.errors import ConfigError
from metarun.core.objectives import no_objective
from metarun.core.tasks import Batch, Examples, SourceInfo
from metarun.run.interrupt import StopRequest
from metarun.run.online import OnlineRun
from metarun.run.parts import Parts
from metarun.settings.build import build_parts, build_run
from metarun.settings.resolve import resolve


class Quadratics:
    """Tasks w'Aw / 2 + b'w, as facts of a batch. With `given`, these (a, b) of one dimension in turn, else random ones
    of five dimensions with curvatures in [0.1, 1]."""

    info = SourceInfo((1,), 0, 1, no_objective, "0" * 64, {})

    def __init__(self, given: list[tuple[float, float]] | None = None) -> None:
        self.given = given

    def episodes(self, split: str, first: int, n: int) -> Iterator[Batch]:
        assert split == "train"
        while True:
            yield join_tasks([self.task(number) for number in range(first, first + n)])
            first += n

    def task(self, number: int) -> Batch:
        if self.given:
            a, b = (torch.tensor(value) for value in self.given[number % len(self.given)])
            a, b = a.reshape(1, 1), b.reshape(1)
        else:
            generator = torch.Generator().manual_seed(number)
            root = torch.linalg.qr(torch.randn(5, 5, generator=generator))[0]
            a = root @ torch.diag(0.1 + 0.9 * torch.rand(5, generator=generator)) @ root.T
            b = torch.randn(5, generator=generator)
        none = Examples(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
        return Batch(none, none, 0, {"a": a[None], "b": b[None]})

    def fingerprint(self, split: str, n_tasks: int) -> str:
        return f"{split} {n_tasks}"


def loss_of(w: Tensor, batch: Batch, alpha: float) -> Tensor:
    """Of each task after one gradient step, [B]."""
    a, b = batch.side["a"], batch.side["b"]
    phi = w - alpha * ((a @ w) + b)
    return (phi[:, None] @ a @ phi[..., None])[:, 0, 0] / 2 + (b * phi).sum(-1)


class Leader(Learner):
    """The best w for all tasks of a batch after a step of size alpha, in closed form; alpha 0 is follow-the-leader.

    f(U(w)) has the gradient (I - aA)(A (w - a(Aw + b)) + b) = (I - aA)^2 (A w + b)."""

    def __init__(self, d: int, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.w = torch.nn.Parameter(torch.zeros(d), requires_grad=False)

    def meta_step(self, batch: Any, optims: Any) -> dict[str, Tensor]:
        a, b = batch.side["a"], batch.side["b"]
        shrink = torch.eye(len(self.w)) - self.alpha * a
        square = shrink @ shrink
        mean = (square @ b[..., None]).mean(0)[:, 0]
        self.w.copy_(-torch.linalg.pinv((square @ a).mean(0)) @ mean)  # there may be many best ones
        return {"loss": loss_of(self.w, batch, self.alpha).mean()}

    def meta_loss(self, batch: Any) -> Any:
        raise NotImplementedError

    def evaluate(self, batch: Any) -> dict[str, Tensor]:
        return {"loss": loss_of(self.w, batch, self.alpha)}


def online(learner: Learner, source: Quadratics, folder: Path, rounds: int, **changes: Any) -> OnlineRun:
    folder.mkdir(parents=True, exist_ok=True)
    parts = Parts(learner, source, {}, [], torch.device("cpu"), folder)
    settings = {"updates": 1, "meta_batch_size": None, "hindsight_steps": 1, "proficient": None} | changes
    return OnlineRun(parts, rounds, checkpoint_every=1000, log_every=1, **settings)


@pytest.fixture
def no_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarun.run.folder.read_hash", lambda folder: None)


@pytest.mark.usefixtures("doubles", "no_results")
def test_the_closed_form_is_what_a_general_optimizer_finds(tmp_path: Path) -> None:
    tasks, alpha = next(Quadratics().episodes("train", 0, 30)), 0.5
    leader = Leader(5, alpha)
    leader.meta_step(tasks, {})
    w = torch.zeros(5, requires_grad=True)
    lbfgs = torch.optim.LBFGS(
        [w], max_iter=500, tolerance_grad=1e-13, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        lbfgs.zero_grad()
        loss = loss_of(w, tasks, alpha).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    lbfgs.step(closure)  # type: ignore[no-untyped-call]
    assert (leader.w - w).abs().max() < 1e-8


@pytest.mark.usefixtures("doubles", "no_results")
def test_regret_on_quadratics_grows_like_the_logarithm_of_the_rounds(tmp_path: Path) -> None:
    """Per doubling of the rounds it grows by about the same, as a log T + c does, and as T or sqrt T do not."""
    regrets = [
        online(Leader(5, 0.5), Quadratics(), tmp_path / str(t), t).execute([], StopRequest())["regret"]
        for t in (25, 50, 100, 200)
    ]
    growth = np.diff(regrets)
    assert (growth > 0).all()
    assert growth.max() < 1.4 * growth.min()
    assert growth[-1] < 0.35 * regrets[-1]


@pytest.mark.usefixtures("doubles", "no_results")
def test_a_leader_that_adapts_has_less_regret_than_one_that_does_not(tmp_path: Path) -> None:
    """Two kinds of tasks in turn, (a, b) = (1, -1) and (0.1, 0.1). With a step of size 1 every task of the first kind
    is solved from anywhere, so the leader is -1, the best of the second kind: the regret is that of the first round of
    the second kind, which starts from 0. Without such a step the leader is 0.9 / 1.1, good for neither kind."""
    kinds = [(1.0, -1.0), (0.1, 0.1)]
    run = online(Leader(1, 1.0), Quadratics(kinds), tmp_path / "ftml", 200)
    outcome = run.execute([], StopRequest())
    assert run.parts.learner.w.item() == pytest.approx(-1)
    assert outcome["regret"] == pytest.approx(0.05 * 0.01 - 0.1 * 0.1 + 0.05)  # after the step: -0.1
    follow = online(Leader(1, 0.0), Quadratics(kinds), tmp_path / "ftl", 200)
    follow.execute([], StopRequest())
    assert follow.parts.learner.w.item() == pytest.approx(0.9 / 1.1)
    lost = [np.load(tmp_path / name / "regret.npz")["loss"] for name in ("ftml", "ftl")]
    # the adapted leader stands at -1 before and after its step on the second kind: w - (0.1 w + 0.1) = -1
    assert lost[0][-2:].tolist() == pytest.approx([-0.5, -0.05])
    w = 0.9 / 1.1
    assert lost[1][-2:].tolist() == pytest.approx([w * w / 2 - w, 0.05 * w * w + 0.1 * w], abs=1e-2)


@pytest.mark.usefixtures("doubles", "no_results")
def test_each_task_is_scored_before_it_is_learned_from_and_drawn_from_those_seen(tmp_path: Path) -> None:
    """Task t shows in no batch of rounds before t, and with `null` in all from t on."""
    happened: list[Any] = []

    class Watching(Leader):
        def evaluate(self, batch: Any) -> dict[str, Tensor]:
            happened.append(("scored", batch.side["b"][:, 0].tolist()))
            return super().evaluate(batch)

        def meta_step(self, batch: Any, optims: Any) -> dict[str, Tensor]:
            happened.append(("learned", batch.side["b"][:, 0].tolist()))
            return super().meta_step(batch, optims)

    numbered = Quadratics([(1.0, float(number)) for number in range(6)])
    online(Watching(1, 0.3), numbered, tmp_path / "all", 4, hindsight_steps=0).execute([], StopRequest())
    assert happened == [(word, seen) for t in range(4) for word, seen in
                        (("scored", [t]), ("learned", [*range(t + 1)]))]  # fmt: skip
    happened.clear()
    torch.manual_seed(0)  # of ten places among six tasks, one is never drawn in a sixth of all runs
    run = online(Watching(1, 0.3), numbered, tmp_path / "some", 6, hindsight_steps=0, meta_batch_size=5, updates=2)
    run.execute([], StopRequest())
    learned = [set(seen) for word, seen in happened if word == "learned"]
    assert len(learned) == 12
    assert all(seen <= set(range(number // 2 + 1)) for number, seen in enumerate(learned))
    assert set.union(*learned) == set(range(6))


@pytest.mark.parametrize(("proficient", "after"), [(0.5, 2), (0.1, None), (3.0, 0), (None, None)])
def test_tasks_to_proficiency_are_those_before_three_good_ones_in_a_row(
    tmp_path: Path, proficient: float | None, after: int | None
) -> None:
    run = online(Leader(1, 0.3), Quadratics([(1.0, 0.0)]), tmp_path, 6, proficient=proficient)
    run.scores = {"loss": [2.0, 0.9, 0.4, 0.5, 0.3, 0.2]}
    assert run._find_proficiency() == after


def test_three_good_ones_at_the_very_end_are_enough(tmp_path: Path) -> None:
    run = online(Leader(1, 0.3), Quadratics([(1.0, 0.0)]), tmp_path, 5, proficient=0.5)
    run.scores = {"loss": [2.0, 0.9, 0.4, 0.5, 0.3]}
    assert run._find_proficiency() == 2


@pytest.mark.usefixtures("doubles", "no_results")
def test_regret_is_against_what_the_last_theta_loses_on_the_same_task(tmp_path: Path) -> None:
    source = Quadratics()
    run = online(Leader(5, 0.3), source, tmp_path, 4)
    lost = run.execute([], StopRequest())["regret"]
    kept = np.load(tmp_path / "regret.npz")
    best = [run.parts.learner.evaluate(source.task(number))["loss"].item() for number in range(4)]
    assert kept["hindsight"].tolist() == pytest.approx(best)
    assert kept["loss"].tolist() == pytest.approx(run.scores["loss"])
    assert kept["regret"].tolist() == pytest.approx(np.cumsum(kept["loss"] - best).tolist())
    assert lost == pytest.approx(kept["regret"][-1])


@pytest.mark.usefixtures("doubles", "no_results")
def test_the_last_rounds_are_logged_wherever_they_stop_and_a_stream_is_known_by_its_training_tasks(
    tmp_path: Path,
) -> None:
    run = online(Leader(5, 0.3), Quadratics(), tmp_path, 5)
    run.log_every = 2
    run.execute([], StopRequest())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = {split: [line["step"] for line in lines if line["split"] == split] for split in ("train", "val")}
    assert steps == {"train": [2, 4, 5], "val": [1, 2, 3, 4, 5]}
    assert run.describe()["episode_sha256"] == "train 5"


SINES = ["run=online", "data=sinusoid", "logger=none", "data.k_shot=5", "run.updates=2", "run.hindsight_steps=3"]
SINES += ["run.meta_batch_size=4", "run.checkpoint_every=1", "backbone.widths=[8]"]


@pytest.mark.slow
def test_a_stopped_stream_goes_on_bit_for_bit_and_logs_regret_and_pictures(tmp_path: Path, cache: Path) -> None:
    words = [*SINES, "algo=maml", "run.proficient=100"]
    assert metarun(*words, "run.steps=60", "hydra.run.dir=whole", cwd=tmp_path, cache=cache)[0] == 0
    stop_and_resume(*words, steps=60, folder=tmp_path / "parted", cache=cache)
    found = []
    for name in ("whole", "parted"):
        lines = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        kept = [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
        regret = {k: v.tolist() for k, v in np.load(tmp_path / name / "regret.npz").items()}
        found.append((kept, regret, results_of(tmp_path / name)["test"]))
        assert (tmp_path / name / "regret.png").is_file()
    assert found[0] == found[1]
    results = results_of(tmp_path / "whole")
    assert (results["status"], results["steps"], results["test"]["loss"]["n_tasks"]) == ("finished", 60, 60)
    assert results["tasks_to_proficiency"] == 0
    assert results["directions"]["regret"] == "lower"  # which `compare` goes by
    assert results["regret"] == pytest.approx(sum(found[0][1]["loss"]) - sum(found[0][1]["hindsight"]))


@pytest.mark.parametrize("words", [["algo=baseline"], ["algo=rl2", "data=bandits"]])
def test_methods_that_are_not_trained_on_tasks_are_refused(settings: Any, words: list[str], tmp_path: Path) -> None:
    chosen = resolve(settings("run=online", *words))
    run = build_run(chosen, build_parts(chosen, tmp_path))
    with pytest.raises(ConfigError, match="is not trained on tasks of examples, and run=online hands it"):
        run.execute([], StopRequest())


@pytest.mark.slow
def test_streams_are_swept_and_compared_task_by_task(tmp_path: Path, cache: Path) -> None:
    words = ["-m", *SINES, "algo=maml,follow_leader", "seed=0,1", "run.steps=6", "hydra.sweep.dir=s"]
    assert metarun(*words, cwd=tmp_path, cache=cache)[0] == 0
    code, out, error = metarun("compare", "s", cwd=tmp_path, cache=cache)
    assert code == 0, error
    assert "maml" in out
    assert "follow_leader" in out
    assert metarun("list", "s", cwd=tmp_path, cache=cache)[0] == 0
