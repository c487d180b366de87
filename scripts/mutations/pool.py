"""Run pytest in copies of the tree, each job in a process forked from this one, which has imported what is slow."""

from __future__ import annotations

import compileall
import importlib
import json
import os
import py_compile
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ELSEWHERE = 97
"""Exit code of a process that found the package in another place than its copy of the tree."""

ASIDE = shutil.ignore_patterns(".*", "__pycache__", "outputs")


class Job(NamedTuple):
    """Tests to run.

    Attributes:
        name: what it is called.
        sessions: test files and node ids; each session runs in the order given, and only if those before it passed.
        limit: seconds of computing after which it is ended; it is too after three times as many of the clock.
        edit: a file of the tree and the text that it is to have meanwhile.
        stop: at the first test that fails.
    """

    name: str
    sessions: Sequence[Sequence[str]]
    limit: float
    edit: tuple[str, str] | None = None
    stop: bool = True


class Outcome(NamedTuple):
    """How a job went: `survived`, `seen`, `import` where tests could not even be collected, `no test` where none ran,
    `timeout`, or `crash` where the process ended by itself; what failed, the seconds of each test and of all, and the
    last words of a crash."""

    what: str
    failed: list[str]
    seconds: dict[str, float]
    whole: float
    said: str = ""


class Pool:
    """As many copies of the tree `root`, each with one job at a time."""

    def __init__(self, root: Path, package: str, folder: Path, workers: int) -> None:
        self.package = package
        self.free = [folder / f"w{number}" for number in range(workers)]
        for place in self.free:
            copy(root, place / "tree")
            # Python compares their source, not its time and size, which a small edit may leave as they were.
            mode = py_compile.PycInvalidationMode.CHECKED_HASH
            compileall.compile_dir(place / "tree" / package, quiet=2, invalidation_mode=mode)

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Each job and how it went, in the order in which they end; a job is asked for when a copy is free."""
        waiting = iter(jobs)
        running: dict[int, tuple[Job, Path, float, str]] = {}
        try:
            while True:
                while self.free and (job := next(waiting, None)):
                    place = self.free.pop()
                    before = self._prepare(place, job)
                    running[self._fork(place, job)] = job, place, time.perf_counter(), before
                if not running:
                    return
                time.sleep(0.02)
                for pid, (job, place, started, before) in list(running.items()):
                    seconds = time.perf_counter() - started
                    gone, status = os.waitpid(pid, os.WNOHANG)
                    ended = gone == pid
                    if ended and status and os.waitstatus_to_exitcode(status) == ELSEWHERE:
                        del running[pid]
                        raise RuntimeError(f"tests would import {self.package} from another place than their copy")
                    if ended or seconds > 3 * job.limit or (seconds > job.limit and computed(pid) > job.limit):
                        end(pid, ended, place / "tmp")
                        del running[pid]
                        if job.edit:
                            (place / "tree" / job.edit[0]).write_text(before)
                        self.free.append(place)
                        yield job, outcome(place, ended, seconds)
        finally:
            for pid, (_, place, _, _) in running.items():
                end(pid, False, place / "tmp")

    def _prepare(self, place: Path, job: Job) -> str:
        """Make the edit; returns what the file was."""
        (place / "result.json").unlink(missing_ok=True)
        shutil.rmtree(place / "tmp", ignore_errors=True)
        (place / "tmp").mkdir()
        if not job.edit:
            return ""
        file = place / "tree" / job.edit[0]
        before = file.read_text()
        file.write_text(job.edit[1])
        return before

    def _fork(self, place: Path, job: Job) -> int:
        sys.stdout.flush()
        if pid := os.fork():
            return pid
        try:
            os.setsid()
            with open(place / "log", "wb") as log, open(os.devnull) as nothing:
                for target, file in ((0, nothing), (1, log), (2, log)):
                    os.dup2(file.fileno(), target)
            self._tests(place, job)
        except BaseException as error:
            os.write(2, repr(error).encode())
        finally:
            os._exit(0)

    def _tests(self, place: Path, job: Job) -> None:
        tree = place / "tree"
        os.chdir(tree)
        sys.path.insert(0, str(tree))
        sys.dont_write_bytecode = True
        os.environ |= {"PYTHONPATH": os.pathsep.join([str(tree), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}
        os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(place / "tmp")}
        tempfile.tempdir = None
        if list(importlib.import_module(self.package).__path__) != [str(tree / self.package)]:
            os._exit(ELSEWHERE)
        watch = Watch(place / "result.json")
        options = [
            "-n",
            "0",
            "-p",
            "no:cacheprovider",
            "-q",
            "-m",
            "slow or not slow",
            f"--basetemp={place / 'tmp' / 'tests'}",
        ]
        for tests in job.sessions:
            watch.place = {test: number for number, test in enumerate(tests)}
            files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
            there = [file for file in files if Path(file).exists()]
            code = int(pytest.main([*options, *["-x"][: job.stop], *there], [watch])) if there else 5
            watch.say(code)
            if code not in (0, 5):
                break


class Watch:
    """A pytest plugin that keeps the order, and says at once what failed."""

    def __init__(self, out: Path) -> None:
        self.out, self.place = out, dict[str, int]()
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        def asked(item: pytest.Item) -> int | None:
            return self.place.get(item.nodeid, self.place.get(item.nodeid.partition("::")[0]))

        kept = sorted((where, number) for number, item in enumerate(items) if (where := asked(item)) is not None)
        config.hook.pytest_deselected(items=[item for item in items if asked(item) is None])
        items[:] = [items[number] for _, number in kept]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)
            self.say(2)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.skipped:
            self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration
        if report.failed and report.nodeid not in self.failed:
            self.failed.append(report.nodeid)
            self.say(1)

    def say(self, code: int) -> None:
        aside = self.out.with_suffix(".part")
        aside.write_text(json.dumps({"code": code, "failed": self.failed, "seconds": self.seconds}))
        os.replace(aside, self.out)


def copy(root: Path, to: Path) -> None:
    """Copy what git knows of the tree or does not ignore; without git all but hidden files and outputs."""
    listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=root, capture_output=True)
    if not (root / ".git").exists() or listed.returncode:
        shutil.copytree(root, to, ignore=ASIDE)
        return
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (root / name).is_file():  # not one that was deleted
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, to / name)


def computed(pid: int) -> float:
    """Seconds of processor time of a process and of those that it waited for, so that a busy machine costs none.

    Where there is no /proc the clock counts.
    """
    try:
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("inf")
    return sum(map(int, told[11:15])) / os.sysconf("SC_CLK_TCK")


def end(pid: int, ended: bool, temporary: Path) -> None:
    """End a job with all that it started: its group, and on Linux whatever has its folder in the environment."""
    mine = [pid]
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"\0TMPDIR={temporary}\0".encode() in b"\0" + file.read_bytes():
                mine.append(int(file.parent.name))
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    for process in mine[ended:]:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    if not ended:
        os.waitpid(pid, 0)


def outcome(place: Path, ended: bool, whole: float) -> Outcome:
    """How the job went that left result.json in `place`, or nothing."""
    file = place / "result.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"code": -1, "failed": [], "seconds": {}}
    failed, seconds, code = found["failed"], found["seconds"], found["code"]
    if failed:
        what = "seen" if "::" in failed[0] and failed[0] in seconds else "import"
    elif not ended:
        what = "timeout"
    elif code == pytest.ExitCode.USAGE_ERROR:  # conftest.py does not import
        what = "import"
    elif code in (0, 5):
        what = "survived" if seconds else "no test"
    else:
        what = "crash"
    said = (place / "log").read_text(errors="replace")[-300:].strip() if what == "crash" else ""
    return Outcome(what, failed, seconds, whole, said)
