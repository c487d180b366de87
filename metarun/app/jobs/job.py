"""One run from its settings to its results, whatever happens on the way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metarun.app.jobs.claim import Claim
from metarun.app.jobs.describe import describe_engine, describe_parts, describe_settings, label_splits, make_run_info
from metarun.app.jobs.inspected import inspected
from metarun.app.jobs.pictures import TASKS_DRAWN, show_curves, show_drawings, show_predictions, show_stream, show_tasks
from metarun.app.jobs.workers import share_run
from metarun.app.messages import make_console
from metarun.core.command import join
from metarun.core.errors import ConfigError, wrong_input
from metarun.core.identity import KEY, read_hash
from metarun.core.memory import check_room, describe_lack_of_memory
from metarun.core.postponed import postponed
from metarun.core.run_folder import RunFolder
from metarun.core.screen import Screen
from metarun.core.secrets import mask_all
from metarun.core.whole import CannotWrite, describe_os_error, shorten_path
from metarun.core.words import name_processes
from metarun.ops import context
from metarun.report.one_run import make_end
from metarun.run.device import hold_device
from metarun.run.evaluation import check_facts
from metarun.run.interrupt import stop_requests
from metarun.run.protocol import Run
from metarun.run.tracking.console import ConsoleSink
from metarun.run.tracking.json_lines import read_lines
from metarun.run.tracking.sink import RunInfo, Sink
from metarun.settings.build import build_logger, build_parts, build_run, check_logger
from metarun.settings.schema import Settings

log = logging.getLogger(__name__)


def run_job(
    resolve: Callable[[], Settings],
    folder: Path,
    overrides: list[str],
    sweep: str | None,
    stop_file: Path | None = None,
    write_settings: Callable[[], None] = lambda: None,
) -> int:
    """Run the settings in `folder`, from the start or from a checkpoint; return the exit code.

    A run that is refused, for wrong settings or missing data, leaves the folder as it was; a job of a sweep leaves
    there why.

    Args:
        resolve: gives the settings. Raises: ConfigError where they are wrong.
        folder: the run's.
        overrides: what was typed.
        sweep: the name of the sweep that it is a job of.
        stop_file: stops the run when it appears; only a sweep has one.
        write_settings: writes those of a new run into its folder, once the run is accepted.
    """
    RunFolder(folder).check_links()
    screen = make_console(quiet=stop_file is not None)  # one table for the whole sweep
    with Claim(folder, screen, write_settings) as claim:
        results: dict[str, Any] = {"status": "failed", "overrides": overrides}
        try:
            settings = resolve()
        except ConfigError as error:
            log.error("%s", error)
            if stop_file:
                claim.accept()
                claim.files.write_results(results | {"error": str(error)})
            return 2
        info = make_run_info(settings, shorten_path(folder), sweep, overrides)
        results = describe_settings(settings, overrides)
        return _execute(settings, info, results, screen, stop_file, claim)


def _execute(
    settings: Settings, info: RunInfo, results: dict[str, Any], screen: Screen, stop_file: Path | None, claim: Claim
) -> int:
    """Build and execute the run, filling `results`. Whatever happens, write results.json, report, close the sinks."""
    run: Run | None = None
    sinks: list[Sink] = []
    code = 1
    try:
        with (
            stop_requests(stop_file) as stop,
            share_run(settings, info.folder) as (group, settings),
            hold_device(settings.device, group) as device,
        ):
            settings = replace(settings, device=str(device))  # what `auto` comes to
            with postponed():
                with context.restoring(claim.files.has_checkpoint()):
                    parts = build_parts(settings, info.folder, group)
                run = build_run(settings, parts)
                needs_tasks = "episodes" in parts.learner.needs
                if needs_tasks:
                    check_room(settings.data, parts.source.info.input_shape, run.tasks_at_once())
                results |= describe_parts(parts) | run.describe()
                if run.resumable():
                    with wrong_input():
                        run.restore()
                    results |= parts.facts
                    log.info("going on from step %d", run.step)
                with wrong_input():
                    first = next(parts.source.episodes("train", 0, TASKS_DRAWN)) if needs_tasks else None
                if needs_tasks:
                    check_facts(parts.learner, parts.source, "val")
                check_logger(settings.logger)
            claim.accept()
            stop.raise_if_made()
            engine = describe_engine(parts.learner, first, run.tasks_at_once())
            if results["images"]:
                log.info("images: %s", results["images"])
            log.info("engine: %s; on %s%s", engine, parts.device, name_processes(group.size))
            logged = read_lines(RunFolder(info.folder).metrics, run.metrics_bytes) if run.step else []
            info = replace(info, id=run.tracking_id, best=run.best, logged=logged)
            info = replace(info, directions=parts.learner.directions)
            logger = build_logger(settings.logger, info)
            sinks += [logger, ConsoleSink(screen, run.steps, label_splits(settings.data), info)]
            results["wandb_id"] = run.tracking_id = logger.id
            if first:
                show_tasks(first, parts, sinks)
            group.connect()
            with inspected(settings.inspect, RunFolder(info.folder).profile, screen):
                results |= run.execute(sinks, stop)
            if first:
                show_predictions(parts, sinks)
            show_drawings(parts, sinks)
            show_stream(parts.folder, sinks)
        results["status"], code = "finished", 0
    except KeyboardInterrupt as interrupted:
        code = getattr(interrupted, "exit_code", 130)
        results |= {"status": "interrupted", "error": str(interrupted) or "SIGINT"}
    except ConfigError as error:
        code = 2
        results |= {"status": "failed", "error": str(error)}
        log.error("%s", error)
    except OSError as error:  # the disk is full, or the folder gone
        results |= {"status": "failed", "error": describe_os_error(error)}
        log.exception("the run failed")
    except (Exception, SystemExit) as error:  # the border of a run: the traceback goes to run.log, not to the caller
        lack = describe_lack_of_memory(error, results["overrides"])
        results |= {"status": "failed", "error": lack or f"{type(error).__name__}: {error}"}
        if lack and not claim.accepted:
            code = 2
            log.error("%s", lack)
        else:
            log.exception("the run failed")
    finally:
        results |= run.facts() if run else {}
        try:
            if code != 2 or claim.accepted or stop_file:
                claim.accept()
                claim.files.write_results(mask_all(results | {KEY: read_hash(claim.files)}))
        except CannotWrite as error:
            code = code or 1
            results |= {"status": "failed", "error": results["error"] or str(error)}
        _end(code, results, screen, sinks, claim)
    return code


def _end(code: int, results: Mapping[str, Any], screen: Screen, sinks: Sequence[Sink], claim: Claim) -> None:
    """Report how the run ended, and only then wait for its logger, which may have much to send."""
    folder = claim.files.path
    for live in sinks[1:]:
        live.finish(results, code)
    if code == 0:
        screen.print()
        make_end(results, shorten_path(folder)).show(screen)
    elif code != 2:
        _say_how_to_go_on(screen, folder, results, claim.accepted)
    try:
        if code == 0:
            show_curves(folder, sinks[:1])
    except CannotWrite as error:
        log.warning("%s", error)
    finally:
        for logger in sinks[:1]:
            logger.finish(results, code)
            for note in logger.notes:
                screen.say(note)


def _say_how_to_go_on(screen: Screen, folder: Path, results: Mapping[str, Any], began: bool) -> None:
    screen.say(f"{results['status']}: {results['error']}", "red" if results["status"] == "failed" else "yellow")
    if not RunFolder(folder).has_settings():
        if began:
            screen.say(f"{shorten_path(folder)} was removed while the run went on, or moved: then resume it there")
        screen.say(f"run again with: metarun {join(results['overrides'])}")
        return
    here = RunFolder(shorten_path(folder))
    if results["status"] == "failed":
        if not results["error"].startswith("cannot write"):
            screen.say(f"the traceback is in {shorten_path(folder)}/run.log")
        if results["error"].startswith("Diverged"):
            screen.print("the numbers blew up: try a smaller optim.lr or algo.inner_lr, or optim.clip_norm=10")
        if where := results.get("diverged"):
            task = "" if where["task"] is None else f" --task {where['task']}"
            screen.say(f"look at its tasks with: {here.make_command('replay')} --step {where['step']}{task}")
    step = results.get("saved_step")
    start = f"from the checkpoint of step {step}" if step else "from the start"
    screen.say(f"go on {start} with: {here.make_command('resume')}")
