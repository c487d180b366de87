"""Weights & Biases."""

from __future__ import annotations

import csv
import logging
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

from metarun.core.command import quote
from metarun.core.ranges import PositiveFloat
from metarun.core.scores import choose_score, is_better
from metarun.run.tracking.sink import RunInfo
from metarun.run.tracking.wandb_environment import (
    check_names,
    choose_mode,
    choose_project,
    drop_wrong_variables,
    find_names,
    find_obstacle,
)
from metarun.run.tracking.wandb_file import find_last_row
from metarun.run.tracking.wandb_kept import keep_log, keep_model, stop_run
from metarun.run.tracking.wandb_words import drop_equal, list_summary, nest

log = logging.getLogger(__name__)

AGENT_VARIABLE = "WANDB_SWEEP_ID"
"""Environment variable that `wandb agent` sets; the agent makes a W&B run for each command."""

OFFLINE_START_SECONDS = 90.0
"""Seconds for W&B's local service to start; it waits for no server."""

ID_FILE = "run_id"
"""In the folder `wandb` of a run: its id there, from the first second on."""


@contextmanager
def end_service() -> Iterator[None]:
    """After an error inside, W&B's own process is given up: neither Python's end nor the next run asks for it."""
    import wandb

    try:
        yield
    except Exception:
        with suppress(Exception):  # it may have been killed
            wandb.teardown()
        raise


class WandbSink:
    """`logger=wandb`: one W&B run, online if a key is configured, else offline in the run's folder.

    Metrics are named `split/metric` and drawn over the outer step, `step`. `val/best_metric` is the best value so far,
    and at the end the value of the tested checkpoint. Under `wandb agent`, it uses the run that the agent made.

    W&B's own step is the number of the line in metrics.jsonl, from 1 on. A resumed run goes through its lines from the
    first on and sends those that W&B does not have, so that no row is there twice and none is lost.

    Args:
        info: facts of the run.
        project, entity: as in W&B; None obeys WANDB_PROJECT and WANDB_ENTITY.
        mode: `auto`, `online`, `offline`, `disabled`; `auto` obeys WANDB_MODE.
        group, tags: None takes those of the environment, or of the run.
        init_timeout: seconds to wait for W&B before going offline, > 0.
        finish_timeout: seconds to wait at the end for the upload, > 0.
        name: of the run; None takes that of the environment, or the run's own.
        log_model: upload the tested checkpoint and the scores of the test tasks as an artifact, alias `best`.
    """

    shows = True

    def __init__(
        self,
        info: RunInfo,
        project: str | None,
        entity: str | None,
        mode: Literal["auto", "online", "offline", "disabled"],
        group: str | None,
        tags: Sequence[str] | None,
        init_timeout: PositiveFloat,
        finish_timeout: PositiveFloat = 60.0,
        name: str | None = None,
        log_model: bool = False,
    ) -> None:
        # W&B reports its own errors to its server, and a server that hangs keeps the process for it.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        wrong = drop_wrong_variables()
        connection = choose_mode(mode)
        if "WANDB_BASE_URL" in wrong and connection == "online":  # no other server gets what was meant for that one
            connection = "offline"
        self.log_model, self.name = log_model, info.name
        self.folder, self.id_file = info.folder, info.folder / "wandb" / ID_FILE
        # A killed process loses what was not flushed, by default 15 s of it.
        settings = wandb.Settings(
            silent=True, console="off", init_timeout=init_timeout, x_transaction_log_flush_interval=1.0,
            finish_timeout=finish_timeout, finish_timeout_raises=True, stop_fn=stop_run,
        )  # fmt: skip
        named = find_names(info.several)
        more = tags or [word for word in os.environ.get("WANDB_TAGS", "").split(",") if word]
        options: dict[str, Any] = {
            "project": choose_project(project),
            "entity": entity,
            "name": (name if info.kind == "train" else None) or named.get("name", info.name),
            "notes": info.notes or os.environ.get("WANDB_NOTES") or None,
            "group": group or named.get("group", info.group),
            "job_type": named.get("job_type", info.kind),
            "tags": [*info.tags, *more],
            "config": nest(info.config),
            "dir": str(info.folder.resolve()),  # W&B's service may run in another folder
            "id": info.id or self._read_id() or named.get("id") or _make_id(),
            "resume": "allow",
            "reinit": "finish_previous",  # else a second run in a process is silently joined to the first
        }
        if os.environ.get(AGENT_VARIABLE):  # the agent made the run, and the environment names it
            options |= {"project": None, "entity": None, "id": None}
        check_names(options["project"], options["tags"])
        self._write_id(options["id"])
        offline, online = (list(info.folder.glob(f"wandb/{kind}-*/*.wandb")) for kind in ("offline-run", "run"))
        obstacle = find_obstacle(wandb.setup().settings.base_url, init_timeout) if connection == "online" else None
        try:
            if obstacle:
                raise ConnectionError(obstacle)
            self.run = wandb.init(mode=connection, settings=settings, **options)  # type: ignore[arg-type]
        except (ConnectionError, wandb.errors.Error) as error:
            log.warning("W&B cannot be reached (%s): logging offline", str(error).splitlines()[0])
            connection = "offline"
            if not obstacle:
                wandb.teardown()
                options["id"] = options["id"] and _make_id()  # the failed attempt may still hold the old id
            settings.init_timeout = OFFLINE_START_SECONDS
            self.run = wandb.init(mode="offline", settings=settings, **options)
        self.id = self.run.id
        self._write_id(self.id)
        self.online, self.finish_timeout = connection == "online", finish_timeout
        known = find_last_row(offline if self.online else [*offline, *online])
        self.best, self.directions = dict[str, float](), info.directions
        self.row = 0
        # What was logged offline is in files here; the server knows what else it has.
        self.told = max(self.run.starting_step - 1, known) if self.online else known
        self.run.define_metric("step", hidden=True)
        for split in ("train", "val", "test"):
            self.run.define_metric(f"{split}/*", step_metric="step")
        info.replay(self.log)
        self.best |= info.best
        self.resumed = self.told > 0
        if connection == "offline":
            self.notes = [f"W&B is offline; to upload: wandb sync {quote(info.folder)}/wandb/offline-run-*"]
            log.info(self.notes[0])
        else:
            self.notes = [self.run.url] if self.run.url else []

    @staticmethod
    def check_settings(settings: Mapping[str, Any]) -> None:
        """Raises: ValueError for settings `logger` that W&B does not take; nothing is written or asked for yet."""
        check_names(settings["project"], settings["tags"] or [])

    @end_service()
    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        shown = {f"{split}/{name}": value for name, value in drop_equal(metrics).items()}
        if split == "val":  # a W&B sweep optimises this, and may end a trial early by it
            score = choose_score(metrics, self.directions)
            if is_better(score, metrics[score], self.best.get(score), self.directions):
                self.best[score] = metrics[score]
            shown[f"val/best_{score}"] = self.best[score]
        self.row += 1
        if self.row > self.told:
            self.run.log({"step": step, **shown}, step=self.row, commit=True)
            self.resumed = False

    @end_service()
    def show(self, name: str, file: Path) -> None:
        import wandb

        if self.resumed:  # what is shown before the first new line was shown when the run began
            return
        show = partial(self.run.log, step=self.row + 1)  # with the next line

        if file.suffix == ".csv":
            heads, *rows = csv.reader(file.read_text().splitlines())
            show({name: wandb.Table([*heads], [[_parse_number(word) for word in row] for row in rows])})
        elif file.suffix == ".html":
            show({name: wandb.Html(str(file), inject=False)})  # W&B's own style would come from its site
        else:
            show({name: wandb.Image(str(file))})

    @end_service()
    def finish(self, results: Mapping[str, Any], exit_code: int) -> None:
        import wandb

        self.run.summary.update(list_summary(results))
        try:
            if not self.run.disabled:  # with mode=disabled there is no run of W&B's to keep anything
                keep_log(self.run, self.folder)
                if self.log_model and exit_code == 0:
                    keep_model(self.run, self.folder, self.name)
        except (OSError, ValueError) as error:  # as of a full disk: the run still comes to its end there
            log.warning("W&B does not have the run's log or weights: %s", error)
        if self.online:
            log.info("sending to W&B what is left, for %g s at most", self.finish_timeout)
        try:
            self.run.finish(exit_code=exit_code)
        except TimeoutError:
            command = f"wandb sync --no-skip-online {quote(self.folder)}/wandb/run-*"
            self.notes = [*self.notes, f"W&B does not have all of the run; to upload the rest: {command}"]
            wandb.teardown()
            return
        if self.online:
            for file in self.folder.glob(f"wandb/run-*-{self.id}/*.wandb"):
                file.with_name(f"{file.name}.synced").touch()  # as `wandb sync` marks what it has uploaded

    def _read_id(self) -> str | None:
        """Return the id of a run that was killed before its first checkpoint."""
        try:
            found = self.id_file.read_text().strip()
        except (OSError, UnicodeDecodeError):
            return None
        return found if re.fullmatch(r"[\w.-]{1,128}", found) else None

    def _write_id(self, id: str | None) -> None:
        if id:
            self.id_file.parent.mkdir(exist_ok=True)
            self.id_file.write_text(id)


def _parse_number(word: str) -> float | str | None:
    try:
        return float(word)
    except ValueError:
        return word or None


def _make_id() -> str:
    return secrets.token_hex(8)
