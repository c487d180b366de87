"""A run as Hydra composed it, in the folder that Hydra made: a new one, or a job of a sweep that was there before."""

from __future__ import annotations

import shutil
import signal
from functools import partial
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf

from metarun.app.jobs.claim import remove_empty
from metarun.app.jobs.job import run_job
from metarun.app.jobs.new_folder import NewFolder, check_free
from metarun.app.sweeps.launch import STARTED_FILE
from metarun.core.identity import KEY, as_mapping, hash_settings, read_config_dirs
from metarun.core.run_folder import RunFolder
from metarun.core.secrets import mask
from metarun.core.whole import CannotWrite, write_bytes
from metarun.report.runs import read_run
from metarun.run.interrupt import STOP_FILE
from metarun.settings.conf import check_own_names
from metarun.settings.looked_up import look_up
from metarun.settings.places import make_absolute
from metarun.settings.resolve import resolve
from metarun.settings.schema import Settings
from metarun.settings.taken import check_same_run


def run_new(config: DictConfig) -> int:
    """Run the job that Hydra composed, in the folder that Hydra made; return the exit code.

    A job of a sweep whose folder an earlier sweep left takes up where that one stopped.
    Raises: ConfigError where the folder is another run's.
    """
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    overrides: list[str] = OmegaConf.to_container(hydra.overrides.task)  # type: ignore[assignment]  # ${...} stays
    config = look_up(config)
    own = read_config_dirs(as_mapping(hydra))

    def settings() -> Settings:
        check_own_names(hydra.runtime.choices, own)
        return resolve(config, hydra.runtime.choices, own=own, typed=overrides)

    write = partial(write_settings, RunFolder(folder), config)
    if "MULTIRUN" not in str(hydra.mode):
        try:
            check_free(RunFolder(folder), "hydra.run.dir")
            return run_job(settings, folder, overrides, None, None, write)
        finally:
            if NewFolder.top:
                remove_empty(folder, NewFolder.top)
    stop = Path(hydra.sweep.dir) / STOP_FILE
    if stop.exists():
        return 128 + signal.SIGINT
    check_same_run(RunFolder(folder), config, own)
    if config.sweep.rerun == "all":
        _clear(folder, stop.with_name(STARTED_FILE).stat().st_mtime_ns)
    run = read_run(folder)
    if run and run.damage and run.results:
        return 2  # the sweep's table says why
    status = run.results.get("status") if run else None
    if status == "finished":
        return 0
    if status == "failed" and config.sweep.rerun != "failed":
        return 1
    return run_job(settings, folder, overrides, folder.resolve().parent.name, stop, write)


def write_settings(files: RunFolder, config: DictConfig) -> None:
    """Write the run's settings, Hydra's own and the overrides into its folder, unless the run has a checkpoint.

    Passwords in addresses are masked: `metarun resume` asks for them again.
    Raises: CannotWrite, and nothing is written.
    """
    from hydra.core.hydra_config import HydraConfig

    if files.has_checkpoint():
        return
    hydra, overrides = mask(OmegaConf.to_yaml(HydraConfig.instance().cfg)), HydraConfig.get().overrides.task
    settings = mask(OmegaConf.to_yaml(make_absolute(config, read_config_dirs(as_mapping(HydraConfig.get())))))
    told = hash_settings(yaml.safe_load(settings), yaml.safe_load(hydra)["hydra"])
    texts = {
        files.overrides: mask(OmegaConf.to_yaml(overrides)),
        files.hydra: f"{hydra}{KEY}: {told}\n",
        files.settings: settings,  # the last: what has settings is a run
    }
    try:
        for path, text in texts.items():
            write_bytes(path, text.encode())
    except CannotWrite:
        for path in texts:
            path.unlink(missing_ok=True)
        raise


def _clear(folder: Path, before: int) -> None:
    """Remove what a run left before the moment `before`, except its settings; a requeued job keeps its own files."""
    for path in folder.iterdir():
        if path.stat().st_mtime_ns >= before:
            continue
        if path.is_dir() and path.name != ".hydra":
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()
