"""A run whose tasks several processes share: what the first one tells the others, and what they do."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from metarun.app.sweeps.launch import JOBS
from metarun.core import machine
from metarun.core.errors import ConfigError
from metarun.run.device import held_device
from metarun.run.interrupt import StopRequest
from metarun.run.offline import Diverged
from metarun.run.processes import following, launched, leading
from metarun.run.team import Group, Lost
from metarun.settings.build import build_parts, build_run


@contextmanager
def shared(config: DictConfig, folder: Path) -> Iterator[Group]:
    """The group of processes that share the run in `folder`, with its resolved settings; this one is the first.

    Where nothing is said of threads, they share the cores.
    Raises: ConfigError if the run is not to be shared.
    """
    size, threads = choose_processes(config), torch.get_num_threads()
    if size > launched() and config.threads == "auto":
        config.threads = max(1, threads // size)
    told = json.dumps({"config": OmegaConf.to_container(config), "folder": str(folder.resolve())})
    try:
        with leading(size, told, config.seed, config.threads) as group:
            yield group
    finally:
        torch.set_num_threads(threads)


def choose_processes(config: DictConfig) -> int:
    """The processes that share the tasks of a run: as many as torchrun started, or as `run.processes` says.

    `auto`: one a GPU, or else one for every `threads` of the cores that this process has, if there are tasks for them;
    one alone where tasks are functions, a step of which is done in less time than it takes to tell the others.
    Raises: ConfigError if the run is not to be shared by so many.
    """
    run, asked, threads = config.run, config.run.processes, config.threads
    name = config.algo["_target_"]
    tasks = min(run.meta_batch_size, run.val_tasks, run.test_tasks) if get_object(name).splits else 1
    gpus = torch.cuda.device_count() if config.device in ("auto", "cuda") else 0
    if (size := launched()) > 1:
        if asked not in (1, "auto", size):
            raise ConfigError(f"torchrun started {size} processes, and run.processes={asked} others: leave that out")
    elif asked == "auto":
        cores = torch.get_num_threads() // (1 if threads == "auto" else threads)
        one = "n_way" not in config.data or (gpus and JOBS in os.environ)  # jobs of a sweep are a GPU each
        return machine.share_of(tasks, 1 if one else gpus or cores)
    else:
        size = asked
    if size > 1 and not get_object(name).splits:
        raise ConfigError(
            f"run.processes={size}: {name.rpartition('.')[2]} does not train task by task, so no processes can share "
            "its outer steps: set run.processes=1"
        )
    if size > tasks:
        raise ConfigError(
            f"run.processes={size} share the tasks of an outer step, of a validation and of the test, and the fewest "
            f"of run.meta_batch_size, run.val_tasks and run.test_tasks is {tasks}: set run.processes={tasks}"
        )
    if launched() == 1 < size and 0 < gpus < size:
        raise ConfigError(f"run.processes={size} take a GPU each, and there is {gpus}: set that, or device=cpu")
    return int(size)


def work() -> int:
    """Do this process's share of the run; returns the exit code.

    It writes nothing, and once all are there signals are the first process's affair: this one ends when that does.
    """
    logging.getLogger().addHandler(logging.NullHandler())
    settings, group = following()
    run: dict[str, Any] = json.loads(settings)
    config = DictConfig(run["config"])
    with held_device(config.device, group) as device:
        config.device = str(device)
        share = build_run(config, build_parts(config, Path(run["folder"]), group))
        if share.resumable():
            share.restore()
        try:
            group.connect()
            for signum in (signal.SIGINT, signal.SIGTERM):
                signal.signal(signum, signal.SIG_IGN)
            share.execute([], StopRequest())
        except (Lost, Diverged):  # of which the first process tells
            return 1
    return 0
