"""A sweep as seen from outside its jobs: which there are, how far each is, and which failed.

The jobs may run in this process, in others or on other machines; all that is read is their folders.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import math
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from metarun.report.compare import compare
from metarun.report.console import console, duration
from metarun.report.runs import find_runs
from metarun.report.stats import selection_score
from metarun.report.tables import on_screen
from metarun.run.record import read_results

ENVIRONMENT = "METARUN_SWEEP"
"""Where the command hands the sweep's name to jobs in other processes."""

POLL = 1.0
"""Seconds between looks at the folders."""

ASIDE = ("hydra.", "hydra/", "paths.", "logger", "sweep.")
"""Overrides that do not make another sweep."""


def sweep_name(arguments: Sequence[str]) -> str:
    """A name that the same command gives again: what is swept, and a hash of all overrides."""
    overrides = sorted(a for a in arguments if "=" in a and not a.startswith(ASIDE) and not a.startswith("--"))
    swept = [o.partition("=")[0].lstrip("+") for o in overrides if "," in o or "(" in o]
    readable = re.sub(r"[^\w.-]+", "_", "-".join(swept))[:60] or "sweep"
    return f"{readable}-{hashlib.sha256(json.dumps(overrides).encode()).hexdigest()[:8]}"


def n_jobs(overrides: Sequence[str]) -> int:
    """How many jobs the overrides of a grid make."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return math.prod(len(list(o.sweep_iterator())) for o in parsed if o.is_sweep_override())


@dataclass(frozen=True)
class Job:
    """One job of a sweep; `state` is finished, failed, interrupted, running or skipped."""

    folder: Path
    overrides: str
    state: str
    step: int
    steps: int
    accuracy: float | None
    left: float | None
    error: str | None


def read_job(folder: Path, since: float) -> Job:
    """The job in `folder`; what finished before the time `since` was skipped."""
    overrides = " ".join(OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "overrides.yaml")))  # type: ignore[arg-type]
    steps = int(OmegaConf.load(folder / ".hydra" / "config.yaml").run.steps)
    results = read_results(folder)
    if results:
        old = (folder / "results.json").stat().st_mtime < since
        state = "skipped" if old and results["status"] == "finished" else results["status"]
        accuracy = ((results.get("test") or {}).get("accuracy") or {}).get("mean")
        return Job(folder, overrides, state, results.get("steps", 0), steps, accuracy, None, results["error"])
    train, val = _last(folder / "metrics.jsonl")
    step = int(train.get("step", 0))
    left = (steps - step) * train["seconds"] / step if step else None
    return Job(folder, overrides, "running", step, steps, (val or train).get("accuracy"), left, None)


def _last(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last train and val lines, read from the file's end."""
    found: dict[str, dict[str, Any]] = {"train": {}, "val": {}}
    if path.exists():
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            for line in file.read().split(b"\n")[:-1]:
                if line.startswith(b"{") and line.endswith(b"}"):
                    values = json.loads(line)
                    found[values["split"]] = values
    return found["train"], found["val"]


class SweepTable(Callback):
    """Hydra's callback that shows all jobs of a multirun in one table, live in a terminal."""

    failed = 0
    """Jobs of the last sweep of this process that did not finish."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # launchers send Hydra's callbacks along with each job; screen and thread stay here

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self.folder = Path(config.hydra.sweep.dir)
        grid = "BasicSweeper" in config.hydra.sweeper._target_
        self.expected = n_jobs(config.hydra.overrides.task) if grid else None
        self.since, self.said = time.time(), set[Path]()
        self.screen: Console = console()
        self.screen.print(f"sweep of {self.expected or 'several'} jobs in {self.folder}")
        self.live = Live(console=self.screen, auto_refresh=False) if self.screen.is_terminal else None
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        atexit.register(self._stop)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        self._stop()
        jobs = self._jobs()
        SweepTable.failed = sum(job.state not in ("finished", "skipped") for job in jobs)
        if not self.live:
            self.screen.print(self._table(jobs))
        self._compare()

    def _compare(self) -> None:
        """End with what `metarun compare` prints of this sweep."""
        finished = [run for run in find_runs([self.folder]) if run.state == "finished"]
        if len(finished) > 1:
            metric = selection_score([name for run in finished for name in run.results["test"]])
            comparisons, notes = compare(finished, None, ["seed"], metric, None)
            self.screen.print()
            for part in [*on_screen(comparisons), *notes]:
                self.screen.print(part)
        self.screen.print(Text(f"again, in other ways: metarun compare {self.folder}"))

    def _watch(self) -> None:
        if self.live:
            self.live.start()
        while not self.stopped.wait(POLL):
            self._look()

    def _stop(self) -> None:
        if not self.stopped.is_set():
            self.stopped.set()
            self.thread.join()
            self._look()
            if self.live:
                self.live.stop()

    def _look(self) -> None:
        jobs = self._jobs()
        for job in jobs:
            if job.state != "running" and job.folder not in self.said:
                self.said.add(job.folder)
                score = f"  {100 * job.accuracy:.2f} %" if job.accuracy is not None else ""
                detail = f"  {job.error}" if job.error else score
                if job.state == "failed" or not self.live:
                    self.screen.print(Text(f"{job.state}: {job.overrides}{detail}"))
        if self.live:
            self.live.update(self._table(jobs), refresh=True)

    def _jobs(self) -> list[Job]:
        folders = sorted(path.parent.parent for path in self.folder.glob("*/.hydra/overrides.yaml"))
        return [read_job(folder, self.since) for folder in folders]

    def _table(self, jobs: list[Job]) -> Table:
        done = sum(job.state in ("finished", "skipped") for job in jobs)
        table = Table(
            box=None, pad_edge=False, title=f"{done} of {self.expected or len(jobs)} done", title_justify="left"
        )
        for name in ("job", "state", "step", "accuracy", "left"):
            table.add_column(name, overflow="fold", justify="left" if name in ("job", "state") else "right")
        shared = set.intersection(*(set(job.overrides.split()) for job in jobs)) if len(jobs) > 1 else set[str]()
        for job in jobs:
            own = " ".join(word for word in job.overrides.split() if word not in shared)
            accuracy = f"{100 * job.accuracy:.2f} %" if job.accuracy is not None else ""
            left = duration(job.left) if job.left is not None else ""
            table.add_row(own, job.state, f"{job.step}/{job.steps}", accuracy, left)
        return table
