"""What runs of each kind say, write and tell their loggers, whole: tests/data/kept has a file for each.

Whoever changes it on purpose writes the files anew by `METARUN_TOLD=write pytest -n 0 tests/test_kept_results.py`, and
reads what git says of them. Clocks, versions and names of the machine are left out. Words are the same everywhere;
numbers are compared where they are rounded as they were then, see kept_numbers.py.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch.utils.tensorboard
from conftest import SMALL, quick_if
from drawn import noted
from kept_numbers import hold
from same_process import Use, using

from metarun.core.results_file import SEAL
from metarun.core.run_folder import SUMS
from metarun.run.tracking import console

IMAGES = [*SMALL, "backbone.hidden=8", "backbone.layers=2"]
POINTS = [word for word in SMALL if not word.startswith(("data.al", "data.ch", "data.train.n_way"))]
CASES = {
    "maml": [*IMAGES, "algo.report_steps=[1]", "tags=[a,b]", "notes=a sentence", "optim/schedule=linear"],
    "metric": [*IMAGES, "algo=protonet", "bn=running", "data.train.k_shot=2", "seed=3"],
    "single": [*IMAGES, "algo=simpleshot", "run.meta_batch_size=6", "data.query=dirichlet", "run.train_tasks=12"],
    "stages": [*IMAGES, "algo=meta_baseline", "run.meta_batch_size=2", "paper={value: 0.9, ci95: 0.01, source: a}"],
    "functions": [*POINTS, "algo=cnp", "data=sinusoid", "algo.width=8", "run.patience=1", "run.val_every=1"],
    "untrained": [*POINTS, "algo=gp_oracle", "data=gp", "algo.nodes=2"],
    "online": [
        *(word for word in IMAGES if not word.startswith(("run.val", "run.test", "run.eval"))),
        "run=online", "run.updates=2", "run.hindsight_steps=2", "run.proficient=0.1",
    ],
    "continual": [
        *(word for word in IMAGES if not word.startswith(("run.val_t", "run.test", "run.eval", "data.train.n_q"))),
        "run=continual", "algo=oml", "run.streams=3", "run.val_streams=2", "run.tasks=3", "run.ways=2",
    ],
    "acting": ["algo=rl2", "data=bandits", "data.episodes=5", "algo.hidden=8", *(w for w in SMALL if w[:4] != "data")],
    "domains": ["algo=dann", "data=moons", *(word for word in SMALL if word[:4] != "data")],
    "debugged": [*IMAGES, "+debug=fast"],
}  # fmt: skip

ASIDE = {
    "git", "versions", "device_name", "threads", "seconds", "tasks_per_second", SEAL, SUMS, "overrides", "split_sha256",
    "episode_sha256", "settings_sha256", "source",
}  # fmt: skip
"""Fields of results.json that are of the machine, or are tested elsewhere."""


@pytest.fixture
def use(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Iterator[Use]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("METARUN_DATA", raising=False)
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: 100.0))  # the first line and the last
    with using(capsys, cache, 120) as used:
        yield used


class Recorded:
    """Every call that is made of a logger's library, a line each."""

    def __init__(self, calls: list[str], name: str, **known: Any) -> None:
        self.__dict__.update(known, calls=calls, name=name)

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Recorded:
            shown = [*map(_show, args), *(f"{key}={_show(value)}" for key, value in options.items())]
            self.calls.append(f"{self.name}.{name}({', '.join(shown)})")
            return Recorded(self.calls, f"{self.name}.{name}()")

        return call

    def __repr__(self) -> str:
        return f"<{self.name}>"


def _show(value: Any) -> str:
    return f"array{value.shape}" if isinstance(value, np.ndarray) else repr(value)


@pytest.mark.parametrize("name", quick_if(("maml", "single", "functions", "online", "acting"), CASES))
def test_a_run_says_and_writes_what_it_did(use: Use, tmp_path: Path, name: str) -> None:
    with noted() as drawn:
        code, out, errors = use(*CASES[name], "logger=none", "threads=1", f"hydra.run.dir={name}")
    folder = tmp_path / name
    found = {"exit code": code, "output": out, "errors": errors}
    found["files"] = list_files(folder)
    results = json.loads((folder / "results.json").read_text())
    found["results.json"] = "\n".join(f"{key}: {json.dumps(results[key])}" for key in results if key not in ASIDE)
    found["aside"] = " ".join(key for key in results if key in ASIDE)
    found["metrics.jsonl"] = (folder / "metrics.jsonl").read_text()
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as arrays:
            found[file.name] = "\n".join(f"{key} {arrays[key].shape} {arrays[key].mean()}" for key in arrays)
    found["drawn"] = "\n".join(line for line in drawn if line.startswith("text"))
    hold(f"run-{name}", found, tmp_path)


def test_wandb_is_told_all_of_a_run_and_of_its_later_tests(
    use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    class Fake(SimpleNamespace):
        errors = SimpleNamespace(Error=ConnectionError)
        run: Any = None

        def init(self, **options: Any) -> Recorded:
            calls.append(f"init({', '.join(f'{key}={_show(value)}' for key, value in sorted(options.items()))})")
            own = {"id": options["id"], "url": None, "disabled": False, "dir": options["dir"], "starting_step": 0}
            return Recorded(calls, "run", **own, summary=Recorded(calls, "summary"))

        def __getattr__(self, name: str) -> Any:
            return getattr(Recorded(calls, "wandb"), name)

    def settings(**options: Any) -> SimpleNamespace:
        calls.append(f"Settings({', '.join(f'{key}={_show(value)}' for key, value in sorted(options.items()))})")
        return SimpleNamespace(**options, update_from_env_vars=lambda named: None)

    fake = Fake(Settings=settings)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr("metarun.run.tracking.wandb_sink._make_id", lambda: "an-id")
    for name in {name for name in os.environ if name.startswith("WANDB_")} - {"WANDB_MODE", "WANDB_SILENT"}:
        monkeypatch.delenv(name)  # each is looked at
    own = [
        "logger=wandb",
        "logger.mode=offline",
        "logger.log_model=true",
        "logger.tags=[mine]",
        "notes=said",
        "tags=[t]",
    ]
    with noted():
        code, _, errors = use(*IMAGES, "algo=protonet", "threads=1", *own, "hydra.run.dir=run")
        assert code == 0, errors
        code, later, errors = use("eval", "run", "data.k_shot=2", "bn=support", "--wandb")
    found = {"exit code": code, "calls": "\n".join(calls), "later": later, "errors": errors}
    hold("wandb", found, tmp_path)


def test_tensorboard_is_told_all_of_a_run(use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def writer(*args: Any, **options: Any) -> Recorded:
        calls.append(f"SummaryWriter({_show(args)}, {options})")
        return Recorded(calls, "writer")

    monkeypatch.setattr(torch.utils.tensorboard, "SummaryWriter", writer)
    code, _, errors = use(
        *POINTS, "algo=fomaml", "data=sinusoid", "threads=1", "logger=tensorboard", "hydra.run.dir=run"
    )
    calls = [re.sub(r"add_summary\(.*", "add_summary(...)", call, flags=re.S) for call in calls]
    hold("tensorboard", {"exit code": code, "calls": "\n".join(calls), "errors": errors}, tmp_path)


@pytest.mark.slow
def test_a_sweep_says_and_writes_what_it_did(use: Use, tmp_path: Path) -> None:
    words = ["-m", *POINTS, "algo=fomaml", "data=sinusoid", "optim.lr=0.1,0.01", "seed=0,1", "threads=1", "logger=none"]
    with noted():
        code, out, errors = use(*words)
        again = use(*words)
    (folder,) = (tmp_path / "outputs" / "sweeps").iterdir()
    found = {"exit code": code, "output": out, "errors": errors, "again": again[1], "files": list_files(folder)}
    for file in sorted(folder.glob("*.csv")):
        rows = list(csv.DictReader(io.StringIO(file.read_text())))
        found[file.name] = "\n".join(str({k: v for k, v in row.items() if "seconds" not in k}) for row in rows)
    hold("sweep", found, tmp_path)


def list_files(folder: Path) -> str:
    return "\n".join(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))
