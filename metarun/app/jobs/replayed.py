"""One outer step of a run made again, to look at its tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarun.app.jobs.pictures import save_picture
from metarun.core.errors import ConfigError, wrong_input
from metarun.core.run_folder import RunFolder
from metarun.core.tasks import Batch
from metarun.core.whole import written_whole
from metarun.ops import context
from metarun.run.device import hold_device
from metarun.run.finite import Examined, examine
from metarun.run.progress import Diverged
from metarun.run.protocol import Replayable
from metarun.run.tracking.pictures import draw_tasks
from metarun.settings.build import build_parts, build_run
from metarun.settings.reopen import reopen
from metarun.settings.schema import Settings
from metarun.settings.start import check_start


def replay(
    folder: Path, step: int, task: int | None, trust: bool, say: Callable[[str], None]
) -> list[tuple[int, Examined]]:
    """Train on from the run's last checkpoint before outer step `step`, and examine the tasks of that step one by one.

    If `task` is given, that task alone is examined, and written to the run's folder.

    With `trust`, the run's settings may name code that does not come with metarun.

    Raises: ConfigError if there is no such run, step or task, or the run's protocol cannot be replayed.
    """
    settings = reopen(folder, trust).resolve()
    with hold_device(settings.device) as device:
        settings = replace(settings, device=str(device))  # what `auto` comes to
        run = _restore_before(settings, folder, step, say)
        try:
            batch = run.advance(step)
        except Diverged as error:
            raise ConfigError(f"outer step {step} is not reached: {error}") from error
        if not hasattr(batch, "tasks"):
            raise ConfigError(f"outer step {step} of {folder} has no tasks that could be looked at one by one")
        if task is not None and not 0 <= task < batch.n_tasks:
            raise ConfigError(f"--task {task}: outer step {step} has the tasks 0 to {batch.n_tasks - 1}")
        numbers = range(batch.n_tasks) if task is None else [task]
        found = [(number, examine(run.parts.learner, batch.tasks(number, number + 1))) for number in numbers]
        if task is not None and isinstance(one := batch.tasks(task, task + 1), Batch):
            for path in _write(one, RunFolder(folder).replays / f"step{step}-task{task}"):
                say(f"written: {path}")
    return found


def _restore_before(settings: Settings, folder: Path, step: int, say: Callable[[str], None]) -> Replayable:
    """Return the run as its last checkpoint before outer step `step` has it, or as it started."""
    with context.restoring(RunFolder(folder).has_checkpoint()):
        run = build_run(settings, build_parts(settings, folder))
    if not isinstance(run, Replayable):
        raise ConfigError(f"run={settings.choices.get('run')} cannot be replayed: {type(run).__name__} has no advance")
    if not 1 <= step <= run.steps:
        raise ConfigError(f"--step {step}: the outer steps of {folder} are 1 to {run.steps}")
    if run.resumable():
        with wrong_input():
            run.restore()
        if run.step >= step:  # the checkpoint is of a later step
            then = run.parts.facts
            run = build_run(settings, build_parts(settings, folder))
            assert isinstance(run, Replayable)
            check_start(then, run.parts.facts)
    start = f"from the checkpoint of step {run.step}" if run.step else "from the start"
    say(f"{step - 1 - run.step} outer steps {start}, then the tasks of step {step}")
    return run


def _write(one: Batch, path: Path) -> list[Path]:
    """Write the tensors of a batch of one task, and its picture if it has images; returns the files."""
    path.parent.mkdir(exist_ok=True)
    arrays: dict[str, Any] = {
        f"{side}_{name}": _as_array(getattr(getattr(one, side), name)[0])
        for side in ("support", "query")
        for name in "xy"
    }
    files = [path.with_suffix(".npz")]
    with written_whole(files[0]) as file:
        np.savez_compressed(file, n_way=one.n_way, **arrays)
    if picture := draw_tasks(one, 1):
        files.append(path.with_suffix(".png"))
        save_picture(picture, files[-1])
    return files


def _as_array(values: torch.Tensor) -> Any:
    return values.cpu().numpy()
