"""Where numbers go: metrics.jsonl always, and one of W&B, TensorBoard or nothing."""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

log = logging.getLogger(__name__)


@dataclass
class RunFacts:
    """What a sink shows of a run.

    Attributes:
        name, group, job_type, tags: as W&B uses the words.
        config: the resolved settings.
        folder: the run's folder.
        wandb_id: W&B's id of the run, None before it has one; a resumed run keeps it.
        notes: lines a sink wants the person to read at the end.
    """

    name: str
    group: str
    job_type: str
    tags: list[str]
    config: dict[str, Any]
    folder: Path
    wandb_id: str | None = None
    notes: list[str] = field(default_factory=list)


class Sink(Protocol):
    """Something that numbers are sent to; `finish` is called however the run ends."""

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None: ...

    def finish(self, results: dict[str, Any], exit_code: int) -> None: ...


class JsonLines:
    """metrics.jsonl: one object a line, cut back to `keep_bytes` where a resumed run goes on."""

    def __init__(self, path: Path, keep_bytes: int) -> None:
        self.file = open(path, "ab")  # noqa: SIM115
        self.file.truncate(keep_bytes)

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        self.file.write(json.dumps({"step": step, "split": split, **metrics}).encode() + b"\n")
        self.file.flush()

    def flush(self) -> int:
        """Bring everything to disk; returns the file's length in bytes."""
        os.fsync(self.file.fileno())
        return self.file.seek(0, os.SEEK_END)

    def close(self) -> None:
        self.file.close()


class NoSink:
    """`logger=none`."""

    def __init__(self, facts: RunFacts) -> None:
        pass

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        pass

    def finish(self, results: dict[str, Any], exit_code: int) -> None:
        pass


class TensorBoardSink:
    """`logger=tensorboard`: event files in the run's folder `tensorboard`, one tag `split/metric` each."""

    def __init__(self, facts: RunFacts) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(facts.folder / "tensorboard"))
        self.writer.add_text("config", f"```\n{json.dumps(facts.config, indent=1)}\n```")
        facts.notes.append(f"tensorboard --logdir {facts.folder / 'tensorboard'}")

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(f"{split}/{name}", value, step)

    def finish(self, results: dict[str, Any], exit_code: int) -> None:
        self.writer.close()


class WandbSink:
    """`logger=wandb`: one W&B run, online where a key is configured, else offline in the run's folder.

    Metrics are named `split/metric` and drawn over the outer step, `step`.

    Args:
        facts: the run; its `wandb_id` is set.
        project, entity: as W&B uses the words.
        mode: `auto`, `online`, `offline`, `disabled`; `auto` obeys WANDB_MODE.
        group, tags: None takes the run's own.
        init_timeout: seconds to wait for W&B before going offline.
    """

    def __init__(
        self,
        facts: RunFacts,
        project: str,
        entity: str | None,
        mode: str,
        group: str | None,
        tags: Sequence[str] | None,
        init_timeout: float,
    ) -> None:
        import wandb

        mode = _mode(mode)
        # A killed process loses what was not flushed, by default 15 s of it.
        settings = wandb.Settings(
            silent=True, console="off", init_timeout=init_timeout, x_transaction_log_flush_interval=1.0
        )
        options: dict[str, Any] = {
            "project": project,
            "entity": entity,
            "name": facts.name,
            "group": group or facts.group,
            "job_type": facts.job_type,
            "tags": [*facts.tags, *(tags or [])],
            "config": facts.config,
            "dir": str(facts.folder.resolve()),  # W&B's service may have another working folder
            "id": facts.wandb_id or _new_id(),
            "resume": "allow",
            "reinit": "finish_previous",  # else a second run in one process silently is the first
        }
        try:
            self.run = wandb.init(mode=mode, settings=settings, **options)  # type: ignore[arg-type]
        except (wandb.errors.CommError, wandb.errors.UsageError) as error:
            log.warning("W&B cannot be reached (%s): logging offline", str(error).splitlines()[0])
            mode = "offline"
            options["id"] = _new_id()  # the failed attempt still holds the other one
            self.run = wandb.init(mode="offline", settings=settings, **options)
        facts.wandb_id = self.run.id
        self.run.define_metric("step", hidden=True)
        for split in ("train", "val", "test"):
            self.run.define_metric(f"{split}/*", step_metric="step")
        if mode == "offline":
            note = f"W&B is offline; to upload: wandb sync {facts.folder / 'wandb'}/offline-run-*"
            log.info(note)
            facts.notes.append(note)
        elif self.run.url:
            facts.notes.append(self.run.url)

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        self.run.log({"step": step, **{f"{split}/{name}": value for name, value in metrics.items()}})

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
