"""A sweep as seen from outside its jobs: which there are, how far each is, and which failed.

The jobs may run in this process, in others or on other machines; all that is read is their folders.
"""

from __future__ import annotations

import atexit
import math
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.live import Live
from rich.table import Table

from metarun.app.messages import make_console
from metarun.app.sweeps.distinct import list_typed
from metarun.app.sweeps.end import conclude
from metarun.app.sweeps.job_state import Job, read_job
from metarun.app.sweeps.launch import JOBS, STARTED_FILE, Launch
from metarun.app.sweeps.listed import TARGET, list_jobs
from metarun.app.sweeps.name import name_sweep
from metarun.app.sweeps.orphans import begin_job, end_job
from metarun.app.sweeps.progress import describe_progress, estimate_left, list_own_words
from metarun.core.command import quote
from metarun.core.errors import ConfigError, Refused
from metarun.core.screen import Screen
from metarun.core.secrets import mask
from metarun.core.whole import write_bytes
from metarun.core.words import format_duration
from metarun.run.interrupt import STOP_FILE

ENVIRONMENT = "METARUN_SWEEP"
"""Where the command hands the sweep's name to jobs in other processes."""

POLL = 1.0
"""Seconds between looks at the folders."""

SAY_EVERY = 30.0
"""Seconds between lines on what runs, where there is no terminal to show the table in."""


def run_sweep(run: Callable[[], Any], arguments: Sequence[str]) -> int:
    """Call `run`, Hydra's multirun of the command line, and return the sweep's exit code.

    No job on this machine outlives the call, whatever breaks it off.
    """
    os.environ[ENVIRONMENT] = name_sweep(arguments)
    os.environ.pop(JOBS, None)
    SweepTable.current = None
    try:
        run()
    except (HydraException, OmegaConfBaseException, ConfigError, Refused):
        raise
    except BaseException as error:
        if SweepTable.current is None:
            raise
        return SweepTable.current.break_off(error)
    assert SweepTable.current is not None
    return SweepTable.current.find_exit_code()


def count_jobs(overrides: Sequence[str], loader: ConfigLoader | None = None) -> int:
    """Count the jobs that the overrides of a grid make; `loader` knows the choices for glob()."""
    parsed = OverridesParser.create(loader).parse_overrides(list(overrides))
    return math.prod(
        len(list(o.sweep_iterator())) for o in parsed if o.is_sweep_override() and not o.is_interval_sweep()
    )


class SweepTable(Callback):
    """Hydra's callback that shows all jobs of a multirun in one table, live in a terminal, and ends the sweep."""

    current: ClassVar[SweepTable | None] = None
    """That of the sweep this process launches or launched last."""

    SCORE = "score"
    """What the table calls a job's score."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # launchers send Hydra's callbacks along with each job; screen and thread stay here

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        SweepTable.current = self
        self.folder, self.rerun = Path(config.hydra.sweep.dir), config.sweep.rerun
        self.expected = self._count_expected(config)
        if self.expected:
            os.environ[JOBS] = str(self.expected)
        basic = "BasicLauncher" in config.hydra.launcher._target_
        self.launch = None if basic else Launch(self.folder, config.hydra.launcher)
        self.stopped = threading.Event()
        if self.launch and self.launch.find_problem():
            return  # the launcher says so, and break_off better
        self.since, self.said = time.time(), set[tuple[Path, str]]()
        self.next_said = self.since + SAY_EVERY
        with suppress(OSError):  # which the launcher meets again
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / STOP_FILE).unlink(missing_ok=True)
            (self.folder / STARTED_FILE).touch()
            self.since = (self.folder / STARTED_FILE).stat().st_mtime
        self.screen: Screen = make_console()
        self.screen.say(f"sweep of {self.expected or 'several'} jobs in {self.folder}")
        self.live = Live(console=self.screen, auto_refresh=False) if self.screen.is_terminal else None
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        atexit.register(self._stop)
        if self.launch:
            self.launch.take_signals()

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Mask passwords in what Hydra wrote of the sweep; in the process of the job, before it begins."""
        begin_job()
        file = Path(config.hydra.sweep.dir) / "multirun.yaml"
        if file.is_file() and (masked := mask(text := file.read_text())) != text:
            write_bytes(file, masked.encode())

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """In the process of the job as well. Hydra keeps what jobs return, with 150 kB of settings each."""
        job_return.cfg = job_return.hydra_cfg = None
        end_job()

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        self._end()
        if not (self.launch and self.launch.signum):
            self._conclude(config)

    def _count_expected(self, config: DictConfig) -> int | None:
        """Count the expected jobs; None if the number is not known."""
        hydra = GlobalHydra.instance()
        loader = hydra.config_loader() if hydra.is_initialized() else None
        if config.hydra.sweeper._target_ == TARGET:
            return len(list_jobs(config.hydra.sweeper.file, list_typed(config), loader))
        if "BasicSweeper" not in config.hydra.sweeper._target_:
            return None
        return count_jobs(list_typed(config), loader)

    def _conclude(self, config: DictConfig) -> None:
        """Report at the end of a complete sweep."""
        conclude(self.folder, config, self.screen)

    def find_exit_code(self) -> int:
        """Return 1 if a job of a completed sweep has not finished, else 0."""
        if self.launch and self.launch.signum:
            self._say("the sweep stopped; the same command goes on with it")
            return 128 + self.launch.signum
        jobs = self._read_jobs()
        done = sum(job.done for job in jobs)
        if (lacking := (self.expected or 0) - len(jobs)) > 0:
            self._say(f"{lacking} of the sweep's jobs never began, or had the settings of another")
        return int(done < max(self.expected or 0, len(jobs)))

    def break_off(self, error: BaseException) -> int:
        """End a sweep whose launcher raised `error`, and its jobs on this machine; return the exit code.

        Raises: ConfigError if there is no such launcher; `error` where the jobs ran in this process.
        """
        if self.launch is None:
            raise error
        if problem := self.launch.find_problem():
            raise ConfigError(problem) from error
        if isinstance(error, SystemExit):  # Ray's way to take SIGTERM, after which it would abort us in three seconds
            signal.alarm(0)
        if not self.launch.remote:
            self.launch.stop()
            self.launch.wait()
        self._end()
        code = 1
        if isinstance(error, KeyboardInterrupt):
            code = getattr(error, "exit_code", 130)
        elif isinstance(error, SystemExit):
            code = 128 + signal.SIGTERM
        else:
            log = self.folder / "launcher.log"
            log.write_text("".join(traceback.format_exception(error)))
            first = next(iter(str(error).strip().splitlines()), "")
            self._say(f"the launcher failed: {type(error).__name__}: {first} (traceback in {log})")
        if self.launch.remote:
            self._say(f"what the cluster has already goes on: squeue and scancel, metarun list {quote(self.folder)}")
        self._say("the sweep stopped; the same command goes on with it")
        return code

    def _end(self) -> None:
        self._stop()
        if self.launch:
            self.launch.give_signals_back()
        if not self.live:
            self.screen.print(self._make_table(self._read_jobs()))

    def _say(self, text: str) -> None:
        self.screen.say(text)

    def _watch(self) -> None:
        if self.live:
            self.live.start()
        while not self.stopped.wait(POLL):
            self._look()

    def _stop(self) -> None:
        if not self.stopped.is_set():
            self.stopped.set()
            self.thread.join()
            self._look()
            if self.live:
                self.live.stop()

    def _look(self) -> None:
        jobs = self._read_jobs()
        for job in jobs:
            if job.state not in ("running", "waiting") and (job.folder, job.state) not in self.said:
                self.said.add((job.folder, job.state))
                if job.state == "failed" or not self.live:
                    self._say(f"{job.state}: {job.overrides}  {job.error or job.score}".rstrip())
        if self.live:
            self.live.update(self._make_table(jobs), refresh=True)
        elif self.launch and not self.stopped.is_set() and time.time() >= self.next_said:
            self.next_said = time.time() + SAY_EVERY
            if line := describe_progress(jobs, self.expected, time.time() - self.since):
                self._say(line)

    def _read_jobs(self) -> list[Job]:
        settings = self.folder.glob("*/.hydra/config.yaml")  # a job writes them last: what has settings is a run
        return [read_job(path.parent.parent, self.since, self.rerun) for path in sorted(settings)]

    def _make_table(self, jobs: list[Job]) -> Table:
        done, seconds = sum(job.done for job in jobs), estimate_left(jobs, self.expected, time.time() - self.since)
        title = f"{done} of {self.expected or len(jobs)} done"
        title += f", about {format_duration(seconds)} left" if seconds and self.live else ""
        table = Table(box=None, pad_edge=False, title=title, title_justify="left")
        for name in ("job", "state", "step", self.SCORE, "left"):
            table.add_column(name, overflow="fold", justify="left" if name in ("job", "state") else "right")
        for job, own in zip(jobs, list_own_words(jobs), strict=True):
            left = format_duration(job.left) if job.left is not None else ""
            table.add_row(own, job.state, f"{job.step}/{job.steps}", job.score, left)
        return table
