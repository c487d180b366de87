"""A small learner of each family that is to come: none of them wants the runner to change.

Each lies beside where `metarun` is typed, with a YAML of its own, and is run, killed half-way where that matters, and
tested by the command.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from commands import metarun, results_of, stop_and_resume
from PIL import Image

CODE = '''
import hashlib
import itertools
import signal
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from metarun import Batch, Examples, Learner, Stage, Staged, TaskBatch
from metarun.core.tasks import SourceInfo


def info(n_way=0):
    return SourceInfo((2,), n_way, 1, lambda output, y: {}, "0" * 64, {})


class Pulls:
    """Two-armed bandits, many at once: the better arm pays 1, the other 0."""

    def __init__(self, better):
        self.better = better  # [B]

    @property
    def n_tasks(self):
        return len(self.better)

    def tasks(self, first, last):
        return Pulls(self.better[first:last])

    def step(self, arms):
        return (arms == self.better).float()


class Bandits:
    """Streams of environments, and nothing else."""

    kinds = ("control",)

    def __init__(self):
        self.info = info()

    def environments(self, split, first, n):
        for start in itertools.count(first, n):
            draws = [torch.Generator().manual_seed(hash_of(split, i)) for i in range(start, start + n)]
            yield Pulls(torch.stack([(torch.rand((), generator=g) < 0.9).long() for g in draws]))

    def fingerprint(self, split, n_tasks):
        return hashlib.sha256(f"{split} {n_tasks}".encode()).hexdigest()


def hash_of(split, number):
    return int.from_bytes(hashlib.sha256(f"{split} {number}".encode()).digest()[:6], "big")


class Prefers(Learner):
    """Learns which arm is the better one more often."""

    kinds, needs = ("control",), ("environments",)

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([1.0, 0.0]))

    def train_stream(self, source, step, meta_batch_size):
        return source.environments("train", step * meta_batch_size, meta_batch_size)

    def eval_stream(self, source, split, first, batch_size):
        return source.environments(split, first, batch_size)

    def meta_loss(self, batch):
        pays = torch.stack([batch.step(torch.full_like(batch.better, arm)) for arm in (0, 1)], 1)  # [B, 2]
        value = (self.logits.softmax(0) * pays).sum(1).mean()
        return -value, {"loss": -value.detach(), "return": value.detach()}

    def evaluate(self, batch):
        got = batch.step(self.logits.argmax().expand(batch.n_tasks))
        return {"loss": -got, "return": got}


class Lines:
    """Tasks: points of y = a x, with a fact of each, and labelled examples of nothing."""

    kinds = ("regression",)

    def __init__(self, plan):
        self.plan, self.info = plan, info()

    def episodes(self, split, first, n):
        for start in itertools.count(first, n):
            found = [torch.Generator().manual_seed(hash_of(split, i)) for i in range(start, start + n)]
            slope = torch.stack([torch.randn((), generator=g) for g in found])  # [B]
            x = torch.stack([torch.randn((5, 1), generator=g) for g in found])  # [B, M, 1]
            side = {"slope": slope[:, None]}
            yield Batch(Examples(x, x * slope[:, None, None]), Examples(-x, -x * slope[:, None, None]), 0, side)

    fingerprint = Bandits.fingerprint


class FromFacts(Learner):
    """Zero-shot: learns what a fact of the task says of its points, without its support set."""

    kinds = ("regression",)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def squares(self, batch):
        predicted = self.weight * batch.side["slope"][..., None] * batch.query.x
        return (predicted - batch.query.y).square().mean((1, 2))

    def meta_loss(self, batch):
        loss = self.squares(batch).mean()
        return loss, {"loss": loss.detach(), "mse": loss.detach()}

    @torch.no_grad()
    def evaluate(self, batch):
        found = self.squares(batch)
        return {"loss": found, "mse": found}


class Duel(FromFacts):
    """Two optimizers: the critic descends by itself; it draws a picture of what it made."""

    def __init__(self):
        super().__init__()
        self.critic = nn.Parameter(torch.zeros(()))

    def build_optims(self, optim):
        return {"outer": optim([self.weight]), "critic": optim([self.critic], "critic")}

    def meta_loss(self, batch):
        loss, metrics = super().meta_loss(batch)
        return loss + self.critic, metrics

    def draw(self, batch):
        return {"made": Image.new("L", (batch.n_tasks, 3), 7)}


class Pipeline(Staged, FromFacts):
    """Three stages: finds the weight, then an offset by an optimizer of its own, then improves on both."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.ones(()))

    def build_optims(self, optim):
        return {"outer": optim([self.weight]), "offset": optim([self.offset], "offset")}

    def stages(self):
        def stream(source, step, n):
            return source.episodes("train", step * n, n)

        def loss(stage):
            def score(batch):
                if self.offset == 0.5 and Path("stop").exists():
                    Path("stop").unlink()
                    signal.raise_signal(signal.SIGTERM)
                loss = self.squares(batch).mean() + self.offset.square()
                found = {"loss": loss, "stage": torch.tensor(float(stage)), "offset": self.offset.clone()}
                return loss, {name: value.detach() for name, value in found.items()}

            return score

        return [
            Stage(2, stream, loss(0), optims=("outer",)),
            Stage(3, stream, loss(1), optims=("offset",)),
            Stage(1, stream, loss(2)),
        ]


class Unrolled(FromFacts):
    """Hands a counter and a sum of losses from step to step; the metric shows them."""

    shareable = False

    def initial_state(self):
        return {"steps": torch.zeros((), dtype=torch.int64), "sum": torch.zeros(())}

    def outer_step(self, state, batch, optims):
        metrics = self.meta_step(batch, optims)
        state = {"steps": state["steps"] + 1, "sum": state["sum"] + metrics["loss"]}
        return state, metrics | {"handed_on": state["sum"], "steps_so_far": state["steps"].float()}


class Online:
    """A protocol of its own: one pass over the training stream, scored on each batch before it learns from it."""

    def __init__(self, parts, rounds):
        self.parts, self.steps, self.tracking_id = parts, rounds, None
        self.step, self.best, self.scores = 0, {}, []

    @staticmethod
    def shareable_tasks(settings):
        return 1

    def describe(self):
        return {"episode_sha256": self.parts.source.fingerprint("train", self.steps)}

    def tasks_at_once(self):
        return 1

    def resumable(self):
        return False

    def restore(self):
        raise NotImplementedError

    def execute(self, sinks, stop):
        learner, stream = self.parts.learner, self.parts.source.episodes("train", 0, 1)
        for _ in range(self.steps):
            batch = next(stream)
            self.scores.append(float(learner.evaluate(batch)["loss"]))
            learner.meta_step(batch, self.parts.optims)
            self.step += 1
            for sink in sinks:
                sink.log(self.step, "train", {"loss": self.scores[-1], "seconds": 0.0})
        regret = sum(self.scores) / self.steps
        return {"test": {"loss": {"mean": regret, "ci95": 0.0, "n_tasks": self.steps, "interval": "none"}}}

    def facts(self):
        seconds = {"total": 0.0, "train": 0.0, "val": 0.0, "test": 0.0}
        return {"val": {}, "best_step": None, "steps": self.step, "seconds": seconds, "tasks_per_second": None}
'''

YAMLS = {
    "algo/prefers": "# Prefers an arm\n_target_: families.Prefers\n",
    "algo/from_facts": "# From facts\n_target_: families.FromFacts\n",
    "algo/duel": "# Two optimizers\n_target_: families.Duel\n",
    "algo/pipeline": "# Three stages\n_target_: families.Pipeline\n",
    "algo/unrolled": "# A state is handed on\n_target_: families.Unrolled\n",
    "data/two_arms": "# Two arms\n_target_: families.Bandits\nsteps: 30\n",
    "data/lines": "# Lines\n_target_: families.Lines\nk_shot: 5\nn_query: 5\ntrain: {k_shot: 5, n_query: 5}\n"
    "eval_seed: 0\nsteps: 20\n",
    "run/one_pass": "# One pass\n_target_: families.Online\nrounds: ${data.steps}\n",
}
QUICK = ["backbone=none", "bn=none", "logger=none", "run.val_tasks=10", "run.test_tasks=20", "run.meta_batch_size=4"]
QUICK += ["optim.lr=0.1", "optim=sgd"]


@pytest.fixture
def families(tmp_path: Path) -> Path:
    (tmp_path / "families.py").write_text(CODE)
    for name, text in YAMLS.items():
        file = tmp_path / "mine" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def run(families: Path, cache: Path, *words: str, folder: str = "r") -> tuple[int, str]:
    words = ("--config-dir", "mine", *words, f"hydra.run.dir={folder}")
    code, out, error = metarun(*words, cwd=families, cache=cache)
    assert "Traceback" not in out + error
    return code, out + error


def lines_of(folder: Path, split: str = "train") -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split]


@pytest.mark.slow
def test_environments_are_trained_and_tested_on(families: Path, cache: Path) -> None:
    """Arm 1 is better in nine tasks of ten; at the start arm 0 is preferred."""
    code, said = run(families, cache, "algo=prefers", "data=two_arms", *QUICK, "run.val_every=30", "optim.lr=1")
    assert code == 0, said
    results = results_of(families / "r")
    assert results["test"]["return"]["mean"] > 0.7
    assert results["directions"]["return"] == "higher"
    assert (results["n_way"], results["k_shot"]) == (None, None)
    assert "prefers on two_arms, bn=none, seed 0" in said
    assert "Prefers is for control" in run(families, cache, "algo=prefers", "data=lines", *QUICK, folder="no")[1]


def test_facts_of_a_task_reach_the_learner_in_training_and_in_tests(families: Path, cache: Path) -> None:
    code, said = run(families, cache, "algo=from_facts", "data=lines", *QUICK, "run.steps=60")
    assert code == 0, said
    assert results_of(families / "r")["test"]["mse"]["mean"] < 0.01


@pytest.mark.slow
def test_an_optimizer_beside_the_outer_one_has_its_own_rate_and_pictures_are_kept(families: Path, cache: Path) -> None:
    """Four steps down a slope of one at a rate of 0.25, constant."""
    own = ["+optims.critic.lr=0.25", "optim/schedule=constant", "run.steps=4"]
    code, said = run(families, cache, "algo=duel", "data=lines", *QUICK, *own)
    assert code == 0, said
    learner = torch.load(families / "r" / "checkpoints" / "last.pt")["learner"]
    assert learner["critic"].item() == pytest.approx(-1.0)
    assert [line["lr_critic"] for line in lines_of(families / "r")] == [0.25]
    assert Image.open(families / "r" / "made.png").size == (4, 3)
    for words, message in (
        (["+optims.critik.lr=1"], "optims.critik: Duel has the optimizers outer, critic"),
        (["+optims.critic.rate=1"], "there is no setting optims.critic.rate"),
    ):
        code, said = run(families, cache, "algo=duel", "data=lines", *QUICK, *words, folder=words[0][8:16])
        assert (code, message in said) == (2, True), said


def test_a_pipeline_of_three_stages_is_taken_up_in_the_middle_of_one(families: Path, cache: Path) -> None:
    """An outer step of the second and third stage halves the offset. The run is stopped in the fourth outer step."""
    words = ["algo=pipeline", "data=lines", *QUICK, "+optims.offset.lr=0.25", "optim/schedule=constant"]
    words += ["run.log_every=1", "run.steps=8"]
    code, said = run(families, cache, *words, folder="whole")
    assert code == 0, said
    whole = lines_of(families / "whole")
    assert [line["stage"] for line in whole] == [0, 0, 1, 1, 1, 2, 2, 2]
    assert [line["offset"] for line in whole] == [1, 1, 1, 0.5, 0.25, 0.125, 0.0625, 0.03125]
    (families / "stop").touch()
    code, said = run(families, cache, *words, folder="parted")
    assert (code, results_of(families / "parted")["steps"]) == (143, 4)
    printed = next(line for line in said.splitlines() if "metarun resume" in line).partition("metarun ")[2]
    assert printed == "resume --trust parted"  # its code is nobody's but the user's
    assert metarun(*printed.split(), cwd=families, cache=cache)[0] == 0
    assert [line["loss"] for line in lines_of(families / "parted")] == [line["loss"] for line in whole]
    assert results_of(families / "parted")["test"] == results_of(families / "whole")["test"]


@pytest.mark.slow
def test_what_an_outer_step_hands_to_the_next_outlives_a_stop(families: Path, cache: Path) -> None:
    """The sum of all losses so far, before the stop and after it."""
    words = ["--config-dir", "mine", "algo=unrolled", "data=lines", *QUICK, "run.log_every=1"]
    stop_and_resume(*words, steps=1000, folder=families / "r", cache=cache, more=("--trust",))
    lines = lines_of(families / "r")
    assert [line["steps_so_far"] for line in lines] == [*range(1, 1001)]
    assert lines[-1]["handed_on"] == pytest.approx(sum(line["loss"] for line in lines), rel=1e-4)


def test_a_protocol_of_ones_own_is_a_run(families: Path, cache: Path) -> None:
    quick = [word for word in QUICK if not word.startswith("run.")]
    code, said = run(families, cache, "algo=from_facts", "data=lines", "run=one_pass", *quick)
    assert code == 0, said
    results = results_of(families / "r")
    assert (results["status"], results["steps"], results["test"]["loss"]["n_tasks"]) == ("finished", 20, 20)
