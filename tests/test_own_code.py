"""Classes of a user's own, beside his settings and named by his YAML alone, as README tells it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import TINY, metarun, results_of

MINE = '''
"""What somebody wrote in a folder of his own."""

import sys

import torch
from torch import Tensor, nn

from metarun import Learner, MetricLearner
from metarun.data.glyphs import Glyphs


class Near(MetricLearner):
    """Nearest class means."""

    def compare(self, params, support, classes, query):
        means = classes.T @ support / classes.sum(0)[:, None]
        return -torch.cdist(query, means)


class OfOneScore(Near):
    """Is scored by f1 in place of accuracy, and says nothing more of it."""

    def score(self, params, state, output, y):
        scores = super().score(params, state, output, y)
        return {"loss": scores["loss"], "f1": scores["accuracy"]}


class OfOneKnownScore(OfOneScore):
    directions = {"f1": "higher"}


class WithSettings(Near):
    """Has settings of the names that others have, with other values."""

    def __init__(self, backbone, loss: str, features: int, layers: int, engine: str, task_chunk: int) -> None:
        super().__init__(backbone, engine, task_chunk)
        self.said = (loss, features, layers)

    def describe(self):
        return super().describe() | {"said": list(self.said)}


class Staged(Near):
    """Reports one metric more in its first three steps, and another one afterwards."""

    def __init__(self, backbone: nn.Module, engine: str, task_chunk: int) -> None:
        super().__init__(backbone, engine, task_chunk)
        self.steps = 0

    def meta_step(self, batch, optims):
        self.steps += 1
        return super().meta_step(batch, optims) | {"warmup" if self.steps <= 3 else "late": torch.tensor(self.steps)}


class Ends(Near):
    """Ends the program, as a script's own main does."""

    def meta_step(self, batch, optims):
        sys.exit(0)


class OfWorlds(Learner):
    """Learns from worlds, whatever those are."""

    needs = ("worlds",)

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def train_stream(self, source, step, meta_batch_size):
        return source.worlds(step, meta_batch_size)

    def meta_loss(self, batch):
        raise NotImplementedError

    def evaluate(self, batch):
        raise NotImplementedError


class Reversed(Glyphs):
    """White paper, black ink."""

    def episodes(self, split, first, batch_size):
        for batch in super().episodes(split, first, batch_size):
            support, query = (side._replace(x=-side.x) for side in (batch.support, batch.query))
            yield batch._replace(support=support, query=query)


class Flat(nn.Module):
    """Pixels."""

    def __init__(self, input_shape: tuple[int, ...], size: int) -> None:
        super().__init__()
        self.layer = nn.Linear(torch.Size(input_shape).numel(), size)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))


class Lines:
    """A sink that writes a line for each metric."""

    shows, id, notes = False, None, ("lines are in lines.txt",)

    def __init__(self, info, word: str) -> None:
        self.file, self.word = info.folder / "lines.txt", word

    def log(self, step, split, metrics):
        with self.file.open("a") as file:
            file.write(f"{self.word} {step} {split}\\n")

    def show(self, name, file):
        pass

    def finish(self, results, exit_code):
        pass
'''

LEARNERS = {"near": "Near", "f1": "OfOneScore", "known_f1": "OfOneKnownScore", "staged": "Staged", "ends": "Ends"}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with somebody's own learners, source, network and sink, and a YAML for each of them."""
    (tmp_path / "mine_all.py").write_text(MINE)
    for group in ("algo", "backbone", "data", "logger"):
        (tmp_path / "mine" / group).mkdir(parents=True)
    for name, cls in LEARNERS.items():
        text = f"# {cls}\n_target_: mine_all.{cls}\nengine: vectorized\ntask_chunk: 1\n"
        (tmp_path / "mine" / "algo" / f"{name}.yaml").write_text(text)
    settings = "loss: hinge\nfeatures: 64\nlayers: 0\nengine: vectorized\ntask_chunk: 1\n"
    (tmp_path / "mine" / "algo" / "set.yaml").write_text(f"# Settings\n_target_: mine_all.WithSettings\n{settings}")
    (tmp_path / "mine" / "algo" / "worlds.yaml").write_text("# Worlds\n_target_: mine_all.OfWorlds\n")
    (tmp_path / "mine" / "backbone" / "flat.yaml").write_text("# Pixels\n_target_: mine_all.Flat\nsize: 6\n")
    (tmp_path / "mine" / "logger" / "lines.yaml").write_text("# Lines\n_target_: mine_all.Lines\nword: at\n")
    shipped = (Path(__file__).parents[1] / "conf" / "data" / "glyphs.yaml").read_text()
    reversed_ = shipped.replace("metarun.data.glyphs.Glyphs", "mine_all.Reversed")
    (tmp_path / "mine" / "data" / "reversed.yaml").write_text(reversed_)
    return tmp_path


def run(mine: Path, cache: Path, *words: str, folder: str = "r") -> tuple[int, str, str]:
    return metarun("--config-dir", "mine", *TINY, *words, f"hydra.run.dir={folder}", cwd=mine, cache=cache)


def test_a_learner_a_source_a_network_and_a_sink_of_ones_own_make_a_run(mine: Path, cache: Path) -> None:
    own = ["algo=near", "data=reversed", "backbone=flat", "logger=lines"]
    small = [word for word in TINY if not word.startswith(("backbone", "logger"))]
    words = ["--config-dir", "mine", *small, *own, "hydra.run.dir=r"]
    code, out, error = metarun(*words, cwd=mine, cache=cache)
    assert (code, error) == (0, ""), out
    results = results_of(mine / "r")
    assert [results[group] for group in ("algo", "data", "backbone")] == ["near", "reversed", "flat"]
    assert results["parameters"] == 28 * 28 * 6 + 6
    assert (mine / "r" / "lines.txt").read_text().splitlines()[:2] == ["at 1 train", "at 2 train"]
    assert "lines are in lines.txt" in out
    code, out, error = metarun("eval", "r", "--trust", cwd=mine, cache=cache)
    assert (code, error) == (0, ""), out


def test_settings_of_ones_own_may_have_the_names_and_not_the_values_of_others(mine: Path, cache: Path) -> None:
    code, out, error = run(mine, cache, "algo=set")
    assert (code, error) == (0, ""), out
    assert results_of(mine / "r")["said"] == ["hinge", 64, 0]


def test_a_metric_may_come_and_go(mine: Path, cache: Path) -> None:
    """Lines of two steps each: the second has both."""
    code, out, error = run(mine, cache, "algo=staged", "run.steps=6", "run.log_every=2")
    assert (code, error) == (0, ""), out
    lines = [json.loads(line) for line in (mine / "r" / "metrics.jsonl").read_text().splitlines()]
    found = [{n: line[n] for n in ("warmup", "late") if n in line} for line in lines if line["split"] == "train"]
    assert found == [{"warmup": 1.5}, {"warmup": 3, "late": 4}, {"late": 5.5}]


def test_a_learner_that_ends_the_program_ends_its_run_with_an_error(mine: Path, cache: Path) -> None:
    code, out, error = run(mine, cache, "algo=ends")
    assert (code, results_of(mine / "r")["status"]) == (1, "failed")
    assert "SystemExit: 0" in out + error


def test_a_learner_of_what_no_source_has_is_told_before_anything_runs(mine: Path, cache: Path) -> None:
    code, out, error = run(mine, cache, "algo=worlds")
    assert code == 2
    assert "OfWorlds learns from worlds, and Glyphs has none; no shipped data has" in out + error
    assert "Traceback" not in out + error


@pytest.mark.slow
def test_a_score_that_nobody_knows_is_compared_only_in_the_direction_that_somebody_says(
    mine: Path, cache: Path
) -> None:
    for lr, folder in (("0.0001", "worse"), ("0.03", "better")):
        assert run(mine, cache, "algo=f1", f"optim.lr={lr}", "run.steps=30", "run.val_every=30", folder=folder)[0] == 0
    means = {folder: results_of(mine / folder)["test"]["f1"]["mean"] for folder in ("worse", "better")}
    assert means["worse"] < means["better"]
    compared = ["compare", "worse", "better", "--metric", "f1"]
    code, _, error = metarun(*compared, cwd=mine, cache=cache)
    assert (code, error) == (2, "metarun: it is not known whether a higher f1 is better: add --higher or --lower\n")
    for flag, first in (("--higher", "0.03"), ("--lower", "0.0001")):
        code, out, error = metarun(*compared, flag, cwd=mine, cache=cache)
        assert (code, error) == (0, "")
        assert next(line for line in out.splitlines() if "0.03" in line or "0.0001" in line).split()[0] == first


@pytest.mark.slow
def test_a_score_whose_direction_its_learner_says_chooses_the_checkpoint_and_ranks_runs(
    mine: Path, cache: Path
) -> None:
    for seed in "01":
        assert run(mine, cache, "algo=known_f1", f"seed={seed}", "run.steps=6", folder=seed)[0] == 0
    results = results_of(mine / "0")
    assert results["directions"] == {"loss": "lower", "f1": "higher"}
    lines = [json.loads(line) for line in (mine / "0" / "metrics.jsonl").read_text().splitlines()]
    validated = [(line["f1"], -line["step"]) for line in lines if line["split"] == "val"]
    assert results["best_step"] == -max(validated)[1]
    code, out, error = metarun("compare", "0", "1", "--by", "seed", "--over", "algo", cwd=mine, cache=cache)
    assert (code, error) == (0, ""), out
    assert "f1" in out


@pytest.mark.slow
def test_a_class_of_a_yaml_of_ones_own_is_found_by_the_name_it_had_before_it_moved(mine: Path, cache: Path) -> None:
    text = (Path(__file__).parents[1] / "conf" / "algo" / "protonet.yaml").read_text()
    old = text.replace("metarun.algos.metric.protonet", "metarun.algos.protonet")
    assert old != text
    (mine / "mine" / "algo" / "old.yaml").write_text(old)
    code, out, error = run(mine, cache, "algo=old")
    assert (code, error) == (0, ""), out
