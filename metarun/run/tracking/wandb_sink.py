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

AGENT_VARIABLE = "WANDB_SWEEP_ID"
"""Environment variable that `wandb agent` sets; the agent makes a W&B run for each command."""

OFFLINE_START_SECONDS = 90.0
"""Seconds for W&B's local service to start; it waits for no server."""


class WandbSink:
    """`logger=wandb`: one W&B run, online if a key is configured, else offline in the run's folder.

    Metrics are named `split/metric` and drawn over the outer step, `step`. `val/best_metric` is the best value so far,
    and at the end the value of the tested checkpoint. Under `wandb agent`, it uses the run that the agent made.

    Args:
        info: facts of the run.
        project, entity: as in W&B.
        mode: `auto`, `online`, `offline`, `disabled`; `auto` obeys WANDB_MODE.
        group, tags: None takes those of the run.
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

        connection = _choose_mode(mode)
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
            "dir": str(info.folder.resolve()),  # W&B's service may run in another folder
            "id": info.id or _make_id(),
            "resume": "allow",
            "reinit": "finish_previous",  # else a second run in a process is silently joined to the first
        }
        if os.environ.get(AGENT_VARIABLE):  # the agent made the run, and the environment names it
            options |= {"project": None, "entity": None, "id": None}
        try:
            self.run = wandb.init(mode=connection, settings=settings, **options)  # type: ignore[arg-type]
        except (wandb.errors.CommError, wandb.errors.UsageError) as error:
            log.warning("W&B cannot be reached (%s): logging offline", str(error).splitlines()[0])
            connection = "offline"
            wandb.teardown()
            options["id"] = options["id"] and _make_id()  # the failed attempt may still hold the old id
            settings.init_timeout = OFFLINE_START_SECONDS
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
        if split == "val":  # a W&B sweep optimises this, and may end a trial early by it
            score = choose_score(metrics, self.directions)
            if is_better(score, metrics[score], self.best.get(score), self.directions):
                self.best[score] = metrics[score]
            shown[f"val/best_{score}"] = self.best[score]
        self.run.log({"step": step, **shown})

    def show(self, name: str, file: Path) -> None:
        import wandb

        if file.suffix == ".csv":
            heads, *rows = csv.reader(file.read_text().splitlines())
            self.run.log({name: wandb.Table([*heads], [[_parse_number(word) for word in row] for row in rows])})
        elif file.suffix == ".html":
            self.run.log({name: wandb.Html(str(file), inject=False)})  # W&B's own style would come from its site
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


def _parse_number(word: str) -> float | str | None:
    try:
        return float(word)
    except ValueError:
        return word or None


def _make_id() -> str:
    return secrets.token_hex(8)


def _choose_mode(mode: str) -> str:
    """Choose online or offline for `auto`: online if the environment or `wandb login` provides credentials."""
    import wandb

    if mode != "auto":
        return mode
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return "online"
    return "online" if wandb.login(prompt=False, verify=False) else "offline"
