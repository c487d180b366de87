"""A run whose tasks several processes share: what the first one tells the others, and what they do."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from metarun.app.sweeps.launch import JOBS
from metarun.core import machine
from metarun.core.errors import ConfigError
from metarun.core.launched import read_launched
from metarun.core.postponed import postponed
from metarun.core.run_folder import RunFolder
from metarun.ops import context
from metarun.run.device import hold_device
from metarun.run.interrupt import STOP_SIGNALS, StopRequest
from metarun.run.processes import join_group, lead_group
from metarun.run.progress import Diverged
from metarun.run.team import Group, Lost
from metarun.settings.build import build_parts, build_run
from metarun.settings.resolve import find_target, from_dict
from metarun.settings.schema import Settings


@contextmanager
def share_run(settings: Settings, folder: Path) -> Iterator[tuple[Group, Settings]]:
    """Return the group of processes that share the run in `folder`, with this one as the first, and its new settings.

    Where nothing is said of threads, the processes share the cores.
    Raises: ConfigError if the run is not to be shared.
    """
    size, threads = choose_processes(settings), torch.get_num_threads()
    if size > read_launched()[1] and settings.threads == "auto":
        settings = replace(settings, threads=max(1, threads // size))
    told = json.dumps({"settings": settings.as_dict(), "own": [*settings.own], "folder": str(folder.resolve())})
    try:
        with lead_group(size, told, settings.seed, settings.threads) as group:
            yield group, settings
    finally:
        torch.set_num_threads(threads)


def choose_processes(settings: Settings) -> int:
    """Choose how many processes share the tasks of a run: as torchrun or `run.processes` says.

    `auto`: one for each GPU, or else one for every `threads` of the cores that this process has, if there are tasks for
    them; a single one where tasks are functions, a step of which is done in less time than it takes to tell the others.
    Raises: ConfigError if the run is not to be shared by so many.
    """
    asked, threads, algo = settings.run.get("processes", 1), settings.threads, find_target(settings.algo)
    shareable = find_target(settings.run).shareable_tasks(settings.run)
    tasks = shareable if algo.shareable else 1
    gpus = torch.cuda.device_count() if settings.device in ("auto", "cuda") else 0
    _, launched = read_launched()
    if (size := launched) > 1:
        if asked not in (1, "auto", size):
            raise ConfigError(f"torchrun started {size} processes, and run.processes={asked} others: leave that out")
    elif asked == "auto":
        cores = torch.get_num_threads() // (1 if threads == "auto" else threads)
        one = "n_way" not in settings.data or (gpus and JOBS in os.environ)  # jobs of a sweep are a GPU each
        return machine.count_processes(tasks, 1 if one else gpus or cores)
    else:
        size = asked
    if size > 1 and not algo.shareable:
        raise ConfigError(
            f"run.processes={size}: {algo.__name__} does not train task by task, so no processes can share "
            "its outer steps: set run.processes=1"
        )
    if size > tasks:
        raise ConfigError(
            f"run.processes={size} share the tasks of an outer step, of a validation and of the test, and the fewest "
            f"of run.meta_batch_size, run.val_tasks and run.test_tasks is {tasks}: set run.processes={tasks}"
        )
    if launched == 1 < size and 0 < gpus < size:
        raise ConfigError(f"run.processes={size} take a GPU each, and there is {gpus}: set that, or device=cpu")
    return int(size)


def work() -> int:
    """Do this process's share of the run; return the exit code.

    It writes nothing, and once all are there signals are the first process's affair: this one ends when that does.
    """
    logging.getLogger().addHandler(logging.NullHandler())
    words, group = join_group()
    told: dict[str, Any] = json.loads(words)
    settings = from_dict(told["settings"], {}, told["own"])
    with hold_device(settings.device, group) as device:
        settings = replace(settings, device=str(device))
        folder = Path(told["folder"])
        with postponed(by_another=True), context.restoring(RunFolder(folder).has_checkpoint()):
            share = build_run(settings, build_parts(settings, folder, group))
        if share.resumable():
            share.restore()
        try:
            group.connect()
            for signum in STOP_SIGNALS:
                signal.signal(signum, signal.SIG_IGN)
            share.execute([], StopRequest())
        except (Lost, Diverged):  # of which the first process tells
            return 1
    return 0
