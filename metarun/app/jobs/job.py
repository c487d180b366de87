"""One run from its settings to its results, whatever happens on the way."""

from __future__ import annotations

import logging
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from metarun.app.jobs.describe import GROUPS, asked, built, run_info
from metarun.app.jobs.pictures import TASKS_DRAWN, show_curves, show_predictions, show_tasks
from metarun.app.jobs.workers import shared
from metarun.app.messages import console, start_logging, stop_logging
from metarun.app.sweeps.launch import STARTED_FILE
from metarun.core.errors import ConfigError, wrong_input
from metarun.core.words import in_processes
from metarun.report.one_run import config_tree, end_table
from metarun.run.device import held_device
from metarun.run.interrupt import STOP_FILE, stop_requests
from metarun.run.offline import OfflineRun
from metarun.run.results import read_results, write_results
from metarun.run.tracking.console import ConsoleSink
from metarun.run.tracking.sink import RunInfo, Sink
from metarun.settings.build import build_logger, build_parts, build_run
from metarun.settings.check import check
from metarun.settings.saved import rename_moved

log = logging.getLogger(__name__)


def run_new(config: DictConfig) -> int:
    """Run the job that Hydra composed, in the folder that Hydra made; returns the exit code.

    A job of a sweep whose folder an earlier sweep left takes up where that one stopped.
    """
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    folder, choices, overrides = Path(hydra.runtime.output_dir), DictConfig(hydra.runtime.choices), hydra.overrides.task
    if "MULTIRUN" not in str(hydra.mode):
        if (folder / "run.log").exists():
            raise ConfigError(f"{folder} already holds a run; go on with it by: metarun resume {folder}")
        return run_job(config, folder, choices, list(overrides), None)
    stop = Path(hydra.sweep.dir) / STOP_FILE
    if stop.exists():
        return 128 + signal.SIGINT
    if config.sweep.rerun == "all":
        _clear(folder, stop.with_name(STARTED_FILE).stat().st_mtime_ns)
    status = (read_results(folder) or {}).get("status")
    if status == "finished":
        return 0
    if status == "failed" and config.sweep.rerun != "failed":
        return 1
    return run_job(config, folder, choices, list(overrides), folder.resolve().parent.name, stop)


def _clear(folder: Path, before: int) -> None:
    """Take away what a run left `before` that moment, the settings aside; a requeued job keeps its own."""
    for path in folder.iterdir():
        if path.stat().st_mtime_ns >= before:
            continue
        if path.is_dir() and path.name != ".hydra":
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()


def run_job(
    config: DictConfig,
    folder: Path,
    choices: DictConfig,
    overrides: list[str],
    sweep: str | None,
    stop_file: Path | None = None,
) -> int:
    """Run, or go on with, what `config` says in `folder`; returns the exit code.

    Args:
        config: the settings, not resolved.
        folder: the run's.
        choices: of each group.
        overrides: what was typed.
        sweep: the name of the sweep that it is a job of.
        stop_file: stops the run when it appears.
    """
    screen = console(quiet=stop_file is not None)  # one table for the whole sweep
    with _alone_in(folder), _logging_to(folder, screen):
        (folder / "results.json").unlink(missing_ok=True)
        try:
            rename_moved(config)
            check(config)
        except ConfigError as error:
            log.error("%s", error)
            write_results(folder, {"status": "failed", "error": str(error), "overrides": overrides})
            return 2
        OmegaConf.resolve(config)
        settings: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
        chosen = {group: str(choices[group]) for group in GROUPS}
        screen.print(config_tree(settings, chosen))
        info = run_info(config, choices, _shown(folder), sweep)
        results = asked(config, chosen, overrides)
        notes: list[str] = []
        code = _execute(config, info, results, notes, screen, stop_file)
        if code == 0:
            screen.print()
            screen.print(end_table(results, _shown(folder), notes))
        elif code != 2:
            _say_how_to_go_on(screen, folder, results)
        return code


def _execute(
    config: DictConfig,
    info: RunInfo,
    results: dict[str, Any],
    notes: list[str],
    screen: Console,
    stop_file: Path | None,
) -> int:
    """Build and run, filling `results` and `notes`; writes results.json and closes the sinks whatever happens."""
    run: OfflineRun | None = None
    sinks: list[Sink] = []
    code = 1
    try:
        with (
            stop_requests(stop_file) as stop,
            shared(config, info.folder) as group,
            held_device(config.device, group) as device,
        ):
            config.device = str(device)  # what `auto` comes to
            run = build_run(config, build_parts(config, info.folder, group))
            parts = run.parts
            results |= built(parts, config.run.test_tasks)
            if run.resumable():
                with wrong_input():
                    run.restore()
                log.info("going on from step %d", run.progress.step)
            stop.raise_if_made()
            mine = -(-run.meta_batch_size // group.size)
            first = next(parts.source.episodes("train", 0, TASKS_DRAWN)) if "episodes" in parts.learner.needs else None
            engine = parts.learner.way(first, mine) if first else parts.learner.engine
            log.info("engine: %s; on %s%s", engine, parts.device, in_processes(group.size))
            directions = parts.learner.directions
            info = replace(info, id=run.tracking_id, best=run.progress.best, directions=directions)
            logger = build_logger(config, info)
            sinks += [logger, ConsoleSink(screen, run.steps)]
            results["wandb_id"] = run.tracking_id = logger.id
            notes += logger.notes
            if first:
                show_tasks(first, parts, sinks)
            group.connect()
            results |= run.execute(sinks, stop)
            if first:
                show_predictions(parts, sinks)
        results["status"], code = "finished", 0
    except KeyboardInterrupt as interrupted:
        code = getattr(interrupted, "exit_code", 130)
        results |= {"status": "interrupted", "error": str(interrupted) or "SIGINT"}
    except ConfigError as error:
        code = 2
        results |= {"status": "failed", "error": str(error)}
        log.error("%s", error)
    except Exception as error:  # the border of a run: the traceback goes to run.log, the caller gets the exit code
        results |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
        log.exception("the run failed")
    finally:
        results |= run.facts() if run else {}
        write_results(info.folder, results)
        try:
            if code == 0:
                show_curves(info.folder, sinks)
        finally:
            for sink in reversed(sinks):
                sink.finish(results, code)
    return code


def _say_how_to_go_on(screen: Console, folder: Path, results: dict[str, Any]) -> None:
    screen.print(f"{results['status']}: {results['error']}")
    if results["status"] == "failed":
        screen.print(f"the traceback is in {_shown(folder)}/run.log")
        if results["error"].startswith("Diverged"):
            screen.print("the numbers blew up: try a smaller optim.lr or algo.inner_lr, or optim.clip_norm=10")
    step = results.get("saved_step")
    start = f"from the checkpoint of step {step}" if step else "from the start"
    screen.print(f"go on {start} with: metarun resume {_shown(folder)}")


def _shown(folder: Path) -> Path:
    """The folder as a person here would type it."""
    folder, here = folder.resolve(), Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder; the lock dies with the process."""
    lock = FileLock(folder / ".hydra" / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ConfigError(f"another process is running {folder}") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _logging_to(folder: Path, screen: Console) -> Iterator[None]:
    handlers = start_logging(folder, screen)
    try:
        yield
    finally:
        stop_logging(handlers)
