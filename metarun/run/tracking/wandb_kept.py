"""What W&B keeps of a run beside its numbers: its log, its tested weights, later tests; and its button to stop."""

from __future__ import annotations

import _thread
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metarun.core.command import quote
from metarun.run.tracking.wandb_environment import choose_mode, find_obstacle
from metarun.run.tracking.wandb_words import list_tests

SECONDS = 60.0
"""Seconds to wait for W&B's answer, at the start and at the end, when later tests are told."""

log = logging.getLogger(__name__)

MODEL = ("checkpoints/best.pt", "test_tasks.npz", "results.json", ".hydra/config.yaml", ".hydra/hydra.yaml")
"""Files of a run's folder that its artifact holds."""


def keep_log(run: Any, folder: Path) -> None:
    """Give a run its log, which W&B shows under Logs."""
    source, shown = folder / "run.log", Path(run.dir) / "output.log"
    if source.is_file():
        shutil.copyfile(source, shown)
        run.save(str(shown), base_path=run.dir, policy="now")


def keep_model(run: Any, folder: Path, name: str) -> None:
    """Log the tested weights of the run in `folder`, and the scores of its test tasks, as an artifact."""
    import wandb

    artifact = wandb.Artifact(re.sub(r"[^\w.-]+", "_", f"{name}-{run.id}")[-128:], type="model")
    for file in MODEL:
        if (folder / file).is_file():
            artifact.add_file(str(folder / file), name=file)
    run.log_artifact(artifact, aliases=["best"])


def tell_tests(folder: Path, id: str, mode: str, options: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> str:
    """Add the scores of later tests to the summary of the run that they belong to; return where they are now.

    Without a key, or where the server cannot be reached, that is a file to be uploaded.

    Args:
        folder: the run's.
        id: the run's in W&B.
        mode: as the run's settings have it.
        options: project and entity, as the run's settings have them.
        found: the tests' results.
    """
    import wandb

    mode = choose_mode(mode)
    obstacle = find_obstacle(wandb.setup().settings.base_url, SECONDS) if mode == "online" else None
    settings = wandb.Settings(silent=True, console="off", init_timeout=SECONDS, finish_timeout=SECONDS)
    run = wandb.init(
        id=id, resume="allow", dir=str(folder.resolve()), settings=settings, reinit="finish_previous",
        mode="offline" if obstacle else mode, **options,  # type: ignore[arg-type]
    )  # fmt: skip
    run.summary.update(list_tests(found))
    run.finish()
    if run.url:
        return f"told W&B: {run.url}"
    why = f"W&B cannot be reached ({obstacle})" if obstacle else f"W&B is {mode}"
    return f"{why}; to upload: wandb sync {quote(folder)}/wandb/offline-run-*"


def stop_run() -> None:
    """Stop as after Ctrl-C, when somebody asks for it on W&B's page; W&B calls this in a thread of its own."""
    log.warning("somebody stopped the run on its page in W&B (Stop run)")
    _thread.interrupt_main()
