"""The end table of a run has each number of its results in its place, and a next command that is another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metarun.report.one_run import make_end

RESULTS: dict[str, Any] = {
    "algo": "maml", "data": "glyphs", "backbone": "conv4", "bn": "support", "seed": 4, "n_way": 5, "k_shot": 2,
    "test": {"accuracy": {"mean": 0.61, "ci95": 0.023, "interval": "Student t over tasks", "n_tasks": 600}},
    "paper": {"value": 0.64, "ci95": 0.017, "source": "Finn 2017, Table 1"},
    "val": {"loss": 1.25, "accuracy": 0.58}, "best_step": 70, "steps": 90,
    "seconds": {"total": 215.0, "train": 143.0, "val": 8.6, "test": 61.0}, "tasks_per_second": 37.0,
    "engine": "vectorized", "device": "cpu", "processes": 2, "parameters": 112_345,
    "overrides": ["algo=maml", "optim.lr=0.01", "seed=4", "hydra.run.dir=r"],
}  # fmt: skip


def test_the_end_table_says_each_number_of_the_results(tmp_path: Path) -> None:
    told = {label: text for label, text, _ in make_end(RESULTS, tmp_path).rows}
    assert told["run"] == "maml on glyphs, 5-way 2-shot, conv4, bn=support, seed 4"
    assert told["test accuracy"] == "61.00 % ± 2.30 %  (95 % interval, Student t over tasks, 600 of them)"
    assert told["paper"] == "64.00 % ± 1.70 %  (Finn 2017, Table 1)"
    assert told["validation"] == "loss 1.2500  accuracy 58.00 % at step 70 of 90, the one tested"
    assert told["time"] == "3:35: training 2:23 at 37 tasks/s, validation 0:09, test 1:01"
    assert told["engine"] == "vectorized on cpu, in 2 processes, 112,345 parameters"
    assert told["next"].partition("   #")[0] == "metarun algo=maml optim.lr=0.01 seed=5"
