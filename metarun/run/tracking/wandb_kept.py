"""What W&B keeps of a run beside its numbers: its log, its tested weights, later tests; and its button to stop."""

from __future__ import annotations

import _thread
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metarun.run.tracking.wandb_words import list_tests

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


def tell_tests(folder: Path, id: str, options: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> str:
    """Add the scores of later tests to the summary of the run that they belong to; return where that is.

    Args:
        folder: the run's.
        id: the run's in W&B.
        options: project and entity, as the run's settings have them.
        found: the tests' results.
    """
    import wandb

    run = wandb.init(
        id=id,
        resume="allow",
        dir=str(folder.resolve()),
        settings=wandb.Settings(silent=True, console="off"),
        reinit="finish_previous",
        **options,
    )
    run.summary.update(list_tests(found))
    run.finish()
    return str(run.url or f"wandb sync {folder}/wandb/offline-run-*")


def stop_run() -> None:
    """Stop as after Ctrl-C, when somebody asks for it on W&B's page; W&B calls this in a thread of its own."""
    log.warning("somebody stopped the run on its page in W&B (Stop run)")
    _thread.interrupt_main()
