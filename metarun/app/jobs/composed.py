"""A run as Hydra composed it, in the folder that Hydra made: a new one, or a job of a sweep that was there before."""

from __future__ import annotations

import shutil
import signal
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from metarun.app.jobs.job import run_job
from metarun.app.sweeps.launch import STARTED_FILE
from metarun.core.errors import ConfigError
from metarun.core.run_folder import RunFolder
from metarun.run.interrupt import STOP_FILE
from metarun.settings.resolve import resolve


def run_new(config: DictConfig) -> int:
    """Run the job that Hydra composed, in the folder that Hydra made; returns the exit code.

    A job of a sweep whose folder an earlier sweep left takes up where that one stopped.
    """
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    folder, overrides = Path(hydra.runtime.output_dir), list(hydra.overrides.task)
    settings = partial(resolve, config, hydra.runtime.choices)
    if "MULTIRUN" not in str(hydra.mode):
        if RunFolder(folder).log.exists():
            raise ConfigError(f"{folder} already holds a run; go on with it by: metarun resume {folder}")
        return run_job(settings, folder, overrides, None)
    stop = Path(hydra.sweep.dir) / STOP_FILE
    if stop.exists():
        return 128 + signal.SIGINT
    if config.sweep.rerun == "all":
        _clear(folder, stop.with_name(STARTED_FILE).stat().st_mtime_ns)
    status = RunFolder(folder).read_results().get("status")
    if status == "finished":
        return 0
    if status == "failed" and config.sweep.rerun != "failed":
        return 1
    return run_job(settings, folder, overrides, folder.resolve().parent.name, stop)


def _clear(folder: Path, before: int) -> None:
    """Take away what a run left `before` that moment, the settings aside; a requeued job keeps its own."""
    for path in folder.iterdir():
        if path.stat().st_mtime_ns >= before:
            continue
        if path.is_dir() and path.name != ".hydra":
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()
