"""A sweep's jobs in processes of their own: how many at a time, and how they are stopped."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

from metarun.core import machine
from metarun.report.runs import find_runs
from metarun.run.interrupt import STOP_FILE, find_handlers

JOBS = "METARUN_JOBS"
"""Environment variable with the number of jobs of the sweep."""

STARTED_FILE = ".started"
"""In a sweep's folder, as old as the sweep: what is older in a job's folder is of an earlier one."""

EXTRAS = {"hydra_submitit_launcher": "slurm", "hydra_ray_launcher": "ray"}
"""Which of our extras a launcher's package comes with."""

PATIENCE = 60.0
"""Seconds that jobs of a sweep have to save and end."""


def register(conf: Path) -> None:
    """Register the resolvers of conf/hydra/launcher, whose files replace the plugins' own of the same names."""
    # Under `uv run` Ray would build an environment for each job.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    Plugins.instance()  # which stores their settings
    stored = ConfigStore.instance().repo["hydra"]["launcher"]
    for file in (conf / "hydra" / "launcher").glob("*.yaml"):
        stored.pop(file.name, None)  # else Hydra takes it for a schema
    for name, share in (("jobs_at_once", machine.count_jobs_at_once), ("cores_per_job", machine.share_cores)):
        OmegaConf.register_new_resolver(f"metarun.{name}", _of_this_machine(share), replace=True)
    OmegaConf.register_new_resolver("metarun.gpus", lambda: len(machine.list_gpus()), replace=True)
    OmegaConf.register_new_resolver("metarun.gpus_per_job", lambda: min(1, len(machine.list_gpus())), replace=True)


def _of_this_machine(share: Any) -> Any:
    def resolver(threads: int | str) -> int:
        cores = machine.count_cores()
        jobs = int(os.environ.get(JOBS, cores))
        return int(share(jobs, threads if isinstance(threads, int) else None, cores, len(machine.list_gpus())))

    return resolver


class Launch:
    """The jobs that a launcher of Hydra's runs in other processes.

    Attributes:
        remote: they belong to a cluster, and go on when this process ends.
        signum: the signal that asked this process to stop, which hands it on to the jobs.
    """

    def __init__(self, folder: Path, launcher: DictConfig) -> None:
        self.folder = folder
        self.target = str(launcher._target_)
        self.remote = self.target.endswith("SlurmLauncher")
        self.signum: int | None = None
        self.before: dict[int, Any] = {}

    def find_problem(self) -> str | None:
        """Explain why this launcher cannot start jobs here, with what to type; None if nothing is known against it."""
        package = self.target.removeprefix("hydra_plugins.").split(".")[0]
        name, extra = package.replace("_", "-"), EXTRAS.get(package)
        if self.target not in Plugins.instance().class_name_to_class:
            how = f"uv sync --extra {extra}, or pip install '.[{extra}]'" if extra else f"pip install {name}"
            return f"this launcher needs {name}, which is not installed: {how}"
        if self.remote and not shutil.which("srun"):
            return "there is no SLURM here (no srun); hydra/launcher=submitit_local does the same on one machine"
        return None

    def take_signals(self) -> None:
        """From now on the first signal to stop stops the jobs, not this process; a second one acts as usual."""
        if not self.remote:
            self.before = {signum: signal.signal(signum, self._note) for signum in find_handlers()}

    def give_signals_back(self) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)
        self.before = {}

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        signal.signal(signum, self.before[signum])
        print("stopping: the running jobs save first (again: at once)", flush=True)
        self.stop()

    def stop(self) -> None:
        """Ask the jobs to stop through a file, because they may be in other process groups, containers or machines."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / STOP_FILE).touch()

    def wait(self) -> None:
        """Wait until no job holds its folder, or patience ends."""
        end = time.monotonic() + PATIENCE
        while self.folder.is_dir() and time.monotonic() < end:
            if not any(run.state == "running" for run in find_runs([self.folder])):
                return
            time.sleep(0.2)
