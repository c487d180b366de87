"""Folders as finished and unfinished runs leave them, written without a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from metarun.core.identity import KEY
from metarun.core.results_file import SEAL
from metarun.core.run_folder import SUMS


def settings(algo: str = "MAML", inner_lr: float | None = 0.4, lr: float = 0.001, seed: int = 0) -> dict[str, Any]:
    rate = {} if inner_lr is None else {"inner_lr": inner_lr}
    return {
        "seed": seed,
        "device": "cpu",
        "bn": "transductive",
        "paper": None,
        "paths": {"data": "${oc.env:METARUN_DATA,'~/.cache/metarun'}", "outputs": "outputs"},
        "data": {"_target_": "metarun.data.glyphs.Glyphs", "k_shot": 1, "steps": 40,
                 "train": {"k_shot": "${data.k_shot}"}},
        "algo": {"_target_": f"metarun.algos.any.{algo}", **rate},
        "optim": {"_target_": "torch.optim.Adam", "lr": lr, "betas": [0.9, 0.999]},
        "run": {"_target_": "metarun.run.offline.OfflineRun", "steps": "${data.steps}"},
        "logger": {"_target_": "metarun.run.tracking.sink.NoSink"},
    }  # fmt: skip


def write_settings(folder: Path, config: dict[str, Any]) -> Path:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder


def write_metrics(folder: Path, steps: int = 40) -> None:
    lines = []
    for step in range(10, steps + 1, 10):
        train = {"loss": 2 - step / 40, "accuracy": 0.2 + step / 100, "seconds": step / 5}
        lines.append({"step": step, "split": "train", **train})
        lines.append({"step": step, "split": "val", "loss": 2 - step / 50, "accuracy": 0.2 + step / 200})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def finished(
    folder: Path,
    scores: Sequence[float],
    algo: str = "maml",
    seed: int = 0,
    config: Any = None,
    score: str = "accuracy",
    **fields: Any,
) -> Path:
    """A finished run whose test tasks scored `scores`."""
    values = np.array(scores)
    write_settings(folder, config or settings(algo.upper(), 0.4 if algo == "maml" else None, seed=seed))
    write_metrics(folder)
    np.savez_compressed(folder / "test_tasks.npz", index=np.arange(len(values)), loss=1 - values, **{score: values})
    test = {"mean": values.mean(), "ci95": 0.01, "n_tasks": len(values), "interval": "Student t over tasks"}
    results = {
        "status": "finished", "error": None, "algo": algo, "data": "glyphs", "backbone": "conv4", "seed": seed,
        "n_way": 5, "k_shot": 1, "n_query": 15, "bn": "transductive", "engine": "vectorized", "device": "cpu",
        "test": {score: test, "loss": test}, "val": {"accuracy": 0.6, "loss": 1.2}, "best_step": 30, "steps": 40,
        "seconds": {"total": 100.0, "train": 80.0, "val": 10.0, "test": 10.0}, "tasks_per_second": 16.0,
        "parameters": 1000, "split_sha256": "s" * 64, "episode_sha256": "e" * 64, "git": None, "paper": None,
        "overrides": [f"algo={algo}", f"seed={seed}"],
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results | fields))
    return folder


def forget_hash(folder: Path) -> Path:
    """Make a run one of before settings, results and checkpoints had a hash, or its data stood in a checkpoint."""
    hydra, results = folder / ".hydra" / "hydra.yaml", folder / "results.json"
    hydra.write_text("".join(line for line in hydra.read_text().splitlines(True) if not line.startswith(KEY)))
    kept = {key: value for key, value in json.loads(results.read_text()).items() if key not in (KEY, SEAL, SUMS)}
    results.write_text(json.dumps(kept))
    for file in (folder / "checkpoints").glob("*.pt"):
        state = torch.load(file)
        torch.save({key: value for key, value in state.items() if key not in (KEY, "source")}, file)
    return folder
