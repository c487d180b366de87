"""What ends a training before its last outer step, a fixed set of training tasks, and the presets of +debug=."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from commands import TINY, lines_of, metarun, results_of
from conftest import noise_tasks

from metarun.run.few_tasks import FewTasks
from metarun.run.limits import Limits
from metarun.run.progress import Progress
from metarun.run.team import Group


@pytest.mark.parametrize(
    ("best", "step", "ends"), [(10, 10, False), (10, 29, False), (10, 30, True), (None, 50, False), (20, 30, False)]
)
def test_patience_counts_validations_since_the_best(best: int | None, step: int, ends: bool) -> None:
    """Validated every 10 steps: after the best at 10, those of 20 and 30 are two without a better one."""
    reason = Limits(None, 2, 10).find_reason(Progress(step, best), Group())
    assert reason == (f"run.patience=2: the validation of step {best} was the best" if ends else None)


def test_time_is_that_of_training_and_validation() -> None:
    limits = Limits(1.5, None, 10)
    assert limits.find_reason(Progress(5, train_seconds=60, val_seconds=29), Group()) is None
    assert (
        limits.find_reason(Progress(5, train_seconds=60, val_seconds=30), Group())
        == "run.max_time=1.5 minutes are over"
    )


def test_few_tasks_come_again_from_whatever_step_on_and_validation_stays_as_it_is() -> None:
    source, few = noise_tasks(), FewTasks(noise_tasks(), 6)
    new = [batch.query.y for batch in islice(source.episodes("train", 0, 2), 3)]
    again = [batch.query.y for batch in islice(few.episodes("train", 2, 2), 5)]
    assert all(torch.equal(one, new[i % 3]) for i, one in enumerate(again, 1))
    for split in ("val", "test"):
        ours, theirs = (next(islice(one.episodes(split, 4, 2), 3, 4)).query.x for one in (few, source))
        assert torch.equal(ours, theirs)
    assert few.info is few.source.info


@pytest.mark.slow
def test_a_run_that_its_time_ends_is_validated_tested_and_stays_ended(tmp_path: Path, cache: Path) -> None:
    code, out, error = metarun(
        *TINY, "run.steps=500", "run.val_every=400", "run.max_time=1e-6", "tags=[try]", "notes=a sentence",
        "hydra.run.dir=r", cwd=tmp_path, cache=cache,
    )  # fmt: skip
    assert (code, error) == (0, ""), out
    assert "training ends at step 1 of 500: run.max_time=1e-06 minutes are over" in out
    results = results_of(tmp_path / "r")
    assert (results["status"], results["steps"], results["best_step"]) == ("finished", 1, 1)
    assert (results["tags"], results["notes"]) == (["try"], "a sentence")
    assert [line["step"] for line in lines_of(tmp_path / "r") if line["split"] == "val"] == [1]
    (tmp_path / "r" / "results.json").unlink()
    assert metarun("resume", "r", cwd=tmp_path, cache=cache)[0] == 0
    assert results_of(tmp_path / "r")["steps"] == 1
    assert "#try a sentence" in metarun("list", ".", cwd=tmp_path, cache=cache)[1]


@pytest.mark.slow
def test_profile_says_where_the_time_goes(tmp_path: Path, cache: Path) -> None:
    code, out, error = metarun(*TINY, "+debug=profile", "run.steps=2", "hydra.run.dir=r", cwd=tmp_path, cache=cache)
    assert code == 0, out + error
    assert "Self CPU" in out
    assert "written: r/profile.json" in out
    assert json.loads((tmp_path / "r" / "profile.json").read_text())["traceEvents"]


def test_nan_names_the_operation_whose_gradient_is_not_finite(tmp_path: Path, cache: Path) -> None:
    typed = [*TINY, "algo=protonet", "+debug=nan", "optim=sgd", "optim.lr=1e30", "run.steps=20", "hydra.run.dir=r"]
    code, out, _ = metarun(*typed, cwd=tmp_path, cache=cache)
    assert code == 1
    assert "Backward0' returned nan values in its" in out


@pytest.mark.slow
def test_overfit_learns_the_same_tasks_by_heart(tmp_path: Path, cache: Path) -> None:
    typed = [*TINY, "algo=protonet", "+debug=overfit", "run.steps=60", "run.meta_batch_size=1", "hydra.run.dir=r"]
    code, out, error = metarun(*typed, cwd=tmp_path, cache=cache)
    assert (code, error) == (0, ""), out
    losses = [line["loss"] for line in lines_of(tmp_path / "r") if line["split"] == "train"]
    assert losses[-1] < 0.2 * losses[0]
