"""One run from its settings to its results, new or resumed, whatever happens on the way."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from metarun.build import build_logger, build_parts, build_run
from metarun.check import check
from metarun.errors import ConfigError, wrong_input
from metarun.names import run_name
from metarun.report.console import ConsoleSink, config_tree, console, end_table, start_logging, stop_logging
from metarun.report.sinks import RunFacts, Sink
from metarun.run import record
from metarun.run.interrupt import stop_requests
from metarun.run.offline import OfflineRun, Parts

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
        return _run(config, folder, choices, list(overrides), None)
    status = (record.read_results(folder) or {}).get("status")
    if config.sweep.rerun == "all":
        _clear(folder)
    elif status == "finished":
        return 0
    elif status == "failed" and config.sweep.rerun != "failed":
        return 1
    return _run(config, folder, choices, list(overrides), folder.resolve().parent.name, quiet=True)  # one table for all


def _clear(folder: Path) -> None:
    """Take away what an earlier run left, the settings aside."""
    for path in folder.iterdir():
        if path.is_dir() and path.name != ".hydra":
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()


def resume(folder: Path) -> int:
    """Go on with the run in `folder` from its last checkpoint; returns the exit code."""
    settings = folder / ".hydra" / "config.yaml"
    if not settings.is_file():
        raise ConfigError(f"{folder} is not the folder of a run: it has no .hydra/config.yaml")
    results = record.read_results(folder)
    if results and results["status"] == "finished":
        screen = console()
        screen.print(f"{folder} is finished already")
        screen.print(end_table(results, folder, []))
        return 0
    config, saved = OmegaConf.load(settings), OmegaConf.load(folder / ".hydra" / "hydra.yaml")
    assert isinstance(config, DictConfig)
    hydra = saved.hydra
    sweep = folder.resolve().parent.name if "MULTIRUN" in str(hydra.mode) else None
    return _run(config, folder, hydra.runtime.choices, list(hydra.overrides.task), sweep)


def _run(
    config: DictConfig,
    folder: Path,
    choices: DictConfig,
    overrides: list[str],
    sweep: str | None,
    quiet: bool = False,
) -> int:
    screen = console(quiet)
    with _alone_in(folder), _logging_to(folder, screen):
        (folder / "results.json").unlink(missing_ok=True)
        try:
            check(config)
        except ConfigError as error:
            log.error("%s", error)
            record.write_results(folder, {"status": "failed", "error": str(error), "overrides": overrides})
            return 2
        OmegaConf.resolve(config)
        settings: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
        chosen = {group: str(choices[group]) for group in ("algo", "data", "backbone", "optim", "run", "logger")}
        screen.print(config_tree(settings, chosen))
        facts = RunFacts(
            name=run_name(config, choices),
            group=sweep or f"{chosen['algo']}-{chosen['data']}-{config.data.n_way}w{config.data.k_shot}s",
            job_type="train",
            tags=[chosen["algo"], chosen["data"], chosen["backbone"], f"bn={config.bn}"],
            config=_flat(settings) | chosen,
            folder=_shown(folder),
        )
        results = _what(config, chosen, overrides)
        code = _execute(config, facts, results, screen)
        if code == 0:
            screen.print()
            screen.print(end_table(results, _shown(folder), facts.notes))
        elif code != 2:
            _say_how_to_go_on(screen, folder, results)
        return code


def _execute(config: DictConfig, facts: RunFacts, results: dict[str, Any], screen: Console) -> int:
    """Build and run, filling `results`; writes results.json and closes the sinks whatever happens."""
    run: OfflineRun | None = None
    sinks: list[Sink] = []
    code = 1
    try:
        with stop_requests() as stop:
            run = build_run(config, build_parts(config, facts))
            parts = run.parts
            results |= _built(parts, config.run.test_tasks)
            if run.resumable():
                with wrong_input():
                    run.restore()
                screen.print(f"going on from step {run.progress.step}")
            stop.raise_if_made()
            log.info("engine %s on %s", parts.learner.engine, parts.device)
            sinks += [build_logger(config, facts), ConsoleSink(screen, run.steps)]
            results["wandb_id"] = facts.wandb_id
            results |= run.execute(sinks, stop)
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
        record.write_results(facts.folder, results)
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


def _built(parts: Parts, test_tasks: int) -> dict[str, Any]:
    """The fields of results.json that building a run makes known."""
    return {
        "engine": parts.learner.engine,
        **parts.learner.describe(),
        "parameters": sum(p.numel() for p in parts.learner.parameters()),
        "device": str(parts.device),
        "split_sha256": parts.source.info.split_sha256,
        "episode_sha256": parts.source.fingerprint("test", test_tasks),
        "source": parts.source.info.facts,
    }


def _what(config: DictConfig, chosen: dict[str, str], overrides: list[str]) -> dict[str, Any]:
    """The fields of results.json that are known before anything is built."""
    train = config.data.train
    return {
        "status": "running",
        "error": None,
        **{group: chosen[group] for group in ("algo", "data", "backbone")},
        "seed": config.seed,
        **{key: config.data[key] for key in ("n_way", "k_shot", "n_query")},
        "train": {key: train[key] for key in ("n_way", "k_shot", "n_query")},
        "meta_batch_size": config.run.meta_batch_size,
        "bn": config.bn,
        "test": None,
        "git": record.git_state(),
        "versions": record.versions(),
        "overrides": overrides,
        "wandb_id": None,
        "paper": OmegaConf.to_container(config.paper) if config.paper else None,
    }


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted key, without what only the program cares for."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif not key.startswith("_") and not prefix.startswith(("paths.", "logger.", "sweep.")):
            flat[f"{prefix}{key}"] = value
    return flat


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
