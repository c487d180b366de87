"""Weights & Biases."""

from __future__ import annotations

import csv
import logging
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from metarun.core.scores import choose_score, is_better
from metarun.run.tracking.sink import RunInfo

log = logging.getLogger(__name__)

AGENT = "WANDB_SWEEP_ID"
"""Set by `wandb agent`, which gives each command a run of its own."""

OFFLINE_TIMEOUT = 90.0
"""Seconds for W&B's own service to start, which no server keeps waiting."""


class WandbSink:
    """`logger=wandb`: one W&B run, online where a key is configured, else offline in the run's folder.

    Metrics are named `split/metric` and drawn over the outer step, `step`; `val/best_metric` is the best so far, and
    at the end what the tested checkpoint had. Under `wandb agent` the run is the agent's.

    Args:
        info: of the run.
        project, entity: as W&B uses the words.
        mode: `auto`, `online`, `offline`, `disabled`; `auto` obeys WANDB_MODE.
        group, tags: None takes the run's own.
        init_timeout: seconds to wait for W&B before going offline.
    """

    shows = True

    def __init__(
        self,
        info: RunInfo,
        project: str,
        entity: str | None,
        mode: Literal["auto", "online", "offline", "disabled"],
        group: str | None,
        tags: Sequence[str] | None,
        init_timeout: float,
    ) -> None:
        import wandb

        connection = _mode(mode)
        # A killed process loses what was not flushed, by default 15 s of it.
        settings = wandb.Settings(
            silent=True, console="off", init_timeout=init_timeout, x_transaction_log_flush_interval=1.0
        )
        options: dict[str, Any] = {
            "project": project,
            "entity": entity,
            "name": info.name,
            "group": group or info.group,
            "job_type": info.kind,
            "tags": [*info.tags, *(tags or [])],
            "config": dict(info.config),
            "dir": str(info.folder.resolve()),  # W&B's service may have another working folder
            "id": info.id or _new_id(),
            "resume": "allow",
            "reinit": "finish_previous",  # else a second run in one process silently is the first
        }
        if os.environ.get(AGENT):  # the run is there already, and the environment names it
            options |= {"project": None, "entity": None, "id": None}
        try:
            self.run = wandb.init(mode=connection, settings=settings, **options)  # type: ignore[arg-type]
        except (wandb.errors.CommError, wandb.errors.UsageError) as error:
            log.warning("W&B cannot be reached (%s): logging offline", str(error).splitlines()[0])
            connection = "offline"
            wandb.teardown()
            options["id"] = options["id"] and _new_id()  # the failed attempt may still hold the other one
            settings.init_timeout = OFFLINE_TIMEOUT
            self.run = wandb.init(mode="offline", settings=settings, **options)
        self.id = self.run.id
        self.best, self.directions = dict(info.best), info.directions
        self.run.define_metric("step", hidden=True)
        for split in ("train", "val", "test"):
            self.run.define_metric(f"{split}/*", step_metric="step")
        if connection == "offline":
            self.notes = [f"W&B is offline; to upload: wandb sync {info.folder / 'wandb'}/offline-run-*"]
            log.info(self.notes[0])
        else:
            self.notes = [self.run.url] if self.run.url else []

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        shown = {f"{split}/{name}": value for name, value in metrics.items()}
        if split == "val":  # what a W&B sweep is by, at every validation for it to end a trial early
            score = choose_score(metrics, self.directions)
            if is_better(score, metrics[score], self.best.get(score), self.directions):
                self.best[score] = metrics[score]
            shown[f"val/best_{score}"] = self.best[score]
        self.run.log({"step": step, **shown})

    def show(self, name: str, file: Path) -> None:
        import wandb

        if file.suffix == ".csv":
            heads, *rows = csv.reader(file.read_text().splitlines())
            self.run.log({name: wandb.Table([*heads], [[_number(word) for word in row] for row in rows])})
        elif file.suffix == ".html":
            self.run.log({name: wandb.Html(str(file), inject=False)})  # W&B's own style would be loaded from its site
        else:
            self.run.log({name: wandb.Image(str(file))})

    def finish(self, results: dict[str, Any], exit_code: int) -> None:
        summary = {key: results.get(key) for key in ("status", "best_step", "steps", "tasks_per_second", "parameters")}
        for split in ("val", "test"):
            for name, value in (results.get(split) or {}).items():
                fields = value if isinstance(value, dict) else {"mean": value}
                summary[f"{split}/best_{name}" if split == "val" else f"test/{name}"] = fields["mean"]
                if "ci95" in fields:
                    summary |= {f"test/{name}_ci95": fields["ci95"], "test/n_tasks": fields["n_tasks"]}
        self.run.summary.update(summary)
        self.run.finish(exit_code=exit_code)


def _number(word: str) -> float | str | None:
    try:
        return float(word)
    except ValueError:
        return word or None


def _new_id() -> str:
    return secrets.token_hex(8)


def _mode(mode: str) -> str:
    """online or offline for `auto`: are credentials configured, in the environment or by `wandb login`?"""
    import wandb

    if mode != "auto":
        return mode
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return "online"
    return "online" if wandb.login(prompt=False, verify=False) else "offline"
