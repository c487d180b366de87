"""Seconds from the command to an accuracy in validation: metarun and learn2learn's script at the same job, in turns.

uv run --group bench python scripts/time_to_accuracy.py --json time_to_accuracy.json --png time_to_accuracy.png
uv run --group bench python scripts/time_to_accuracy.py --algos protonet --rounds 3

Omniglot, 5-way 1-shot: the same classes, network, rates, tasks of a step and validation tasks, each program with the
threads that it takes by itself; x2 is metarun with run.processes=2, where a step has tasks to share. They take turns
from one validation to the next, so that a slow hour of the machine is everyone's; while one runs the others are stopped
and their clocks too. A program is ended when it is there, or after --limit seconds of its own. With --steps the rate
falls to 0 over so many outer steps, in all as half a cosine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
from contestants.tables import PEER
from rich.console import Console

SCRIPTS = Path(__file__).resolve().parent
console = Console(highlight=False, width=150)


class Job(NamedTuple):
    """What both train: ways, queries a class and tasks of an outer step, its rate, how validation goes, and over how
    many steps the rate falls, if it does."""

    ways: int
    queries: int
    tasks: int
    rate: float
    every: int
    val_tasks: int = 200
    steps: int = 0


JOBS = {
    "maml": Job(5, 1, 32, 0.003, 100),  # learn2learn's maml_omniglot.py
    "protonet": Job(60, 5, 1, 0.001, 50),  # Snell 2017
}

PROGRAMS = {"metarun": [], "x2": ["run.processes=2"], PEER: []}
"""What takes part, and what its command has of its own."""


class Point(NamedTuple):
    """One validation: seconds since the command, outer steps, accuracy."""

    seconds: float
    step: int
    accuracy: float


def main(arguments: Sequence[str]) -> None:
    """Run what is asked for."""
    asked = parser().parse_args(arguments)
    found: list[dict[str, Any]] = []
    for algo in asked.algos:
        job = JOBS[algo]._replace(steps=asked.steps)
        programs = [name for name in asked.only if name != "x2" or job.tasks > 1]
        for number in range(asked.first, asked.first + asked.rounds):
            names = programs if number % 2 == 0 else programs[::-1]
            points: dict[str, list[Point]] = {name: [] for name in names}
            about = {"algo": algo, "job": job._asdict(), "round": number}
            found += [about | {"contestant": name, "points": points[name]} for name in names]
            for _ in race(algo, job, number, points, asked.target, asked.limit):
                if asked.json:
                    whole = {"command": shlex.join(["scripts/time_to_accuracy.py", *arguments]), "target": asked.target}
                    asked.json.write_text(json.dumps(whole | {"runs": found}) + "\n")
            for name in names:
                console.print(f"{algo}, {name}: {outcome(points[name], asked.target)}")
            for name in names:
                if PEER in names and name != PEER:
                    console.print(f"{algo}: {name} {compared(points[name], points[PEER], asked.target)}")
            if asked.png:
                draw(found, asked.target, asked.png)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--algos", type=some_of(JOBS), default=list(JOBS), help=f"with commas; default {','.join(JOBS)}")
    every = ",".join(PROGRAMS)
    made.add_argument("--only", type=some_of(PROGRAMS), default=list(PROGRAMS), help=f"with commas; default {every}")
    made.add_argument("--target", type=float, default=0.95, help="accuracy in validation; default 0.95")
    made.add_argument("--steps", type=int, default=0, help="over which the rate falls to 0; default: it does not")
    made.add_argument("--rounds", type=int, default=1, help="default 1")
    made.add_argument("--first", type=int, default=0, help="number of the first round, metarun's seed in it; default 0")
    made.add_argument("--limit", type=float, default=3600, help="seconds of a program; default 3600")
    made.add_argument("--json", type=Path, help="where all numbers go")
    made.add_argument("--png", type=Path, help="where the picture goes")
    return made


def some_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """The type of an option that takes names with commas between."""

    def names(text: str) -> list[str]:
        found = text.split(",")
        if unknown := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
        return found

    return names


def race(algo: str, job: Job, seed: int, points: dict[str, list[Point]], target: float, limit: float) -> Iterator[None]:
    """Run the programs named in `points` in turns, each from one validation to its next, until all have ended; what
    they say of themselves is added to `points`, and each turn yields once."""
    with contextlib.ExitStack() as stack:
        programs = {name: stack.enter_context(contextlib.closing(Program(name, algo, job, seed))) for name in points}
        while programs:
            for name, program in list(programs.items()):
                point = program.turn(limit)
                if point:
                    points[name].append(point)
                    console.print(f"  {name} {point.seconds:.0f} s: {100 * point.accuracy:.2f} %")
                if not point or point.accuracy >= target:
                    programs.pop(name).close()
                yield


class Program:
    """One contestant's command, which runs during its turns only; its seconds are those of its turns."""

    def __init__(self, name: str, algo: str, job: Job, seed: int) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="metarun-bench-")
        folder = Path(self.folder.name)
        self.said = folder / "said"
        self.file = self.said if name == PEER else folder / "run" / "metrics.jsonl"
        self.words = command(name, algo, job, seed, folder)
        self.process: subprocess.Popen[bytes] | None = None
        self.seconds, self.read = 0.0, 0

    def turn(self, limit: float) -> Point | None:
        """Its next validation; None where it ended, or had had its `limit` seconds, before that."""
        started = time.perf_counter() - self.seconds
        if self.process is None:
            with self.said.open("wb") as said:
                self.process = subprocess.Popen(self.words, stdout=said, cwd=self.folder.name, start_new_session=True)
        else:
            os.killpg(self.process.pid, signal.SIGCONT)
        point, running = None, True
        while point is None and running and self.seconds < limit:
            running = self.process.poll() is None
            time.sleep(0.1)
            self.seconds = time.perf_counter() - started
            point = self.validation()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGSTOP)
        self.seconds = time.perf_counter() - started
        return point

    def validation(self) -> Point | None:
        """What it says of itself since it was last asked, once that is a validation."""
        text = self.file.read_bytes()[self.read :] if self.file.exists() else b""
        for line in text.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            self.read += len(line)
            found = json.loads(line)
            if found.get("split", "val") == "val":
                return Point(round(self.seconds, 2), found["step"], found["accuracy"])
        return None

    def close(self) -> None:
        """End it with all that it started, and remove what it wrote."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.folder.cleanup()


def outcome(points: Sequence[Point], target: float) -> str:
    """How far a program came, in words."""
    if not points:
        return "ended before its first validation"
    last = points[-1]
    there = "" if last.accuracy >= target else "not "
    return f"{there}{100 * target:.0f} % after {last.seconds:.0f} s, {last.step} outer steps"


def compared(ours: Sequence[Point], theirs: Sequence[Point], target: float) -> str:
    """How many times as fast `ours` was there as learn2learn, in words: a bound where one of them was ended before.

    At which validation a noisy curve crosses the target is chance; the time of as many outer steps is not.
    """
    if not ours or not theirs:
        return "has nothing to compare: a program was ended before its first validation"
    alike = min(len(ours), len(theirs)) - 1  # both validate every so many steps
    equal = f"{ours[alike].step} outer steps: {theirs[alike].seconds / ours[alike].seconds:.2f} times"
    ratio = f"{theirs[-1].seconds / ours[-1].seconds:.2f} times as fast as {PEER}"
    match ours[-1].accuracy >= target, theirs[-1].accuracy >= target:
        case True, True:
            said = ratio
        case True, False:
            said = f"more than {ratio}, which was not there yet"
        case False, True:
            said = f"less than {ratio}: it was not there yet"
        case _:
            said = f"has nothing to compare: neither reached {100 * target:.0f} %"
    return f"{said} ({equal})"


def command(name: str, algo: str, job: Job, seed: int, folder: Path) -> list[str]:
    """What a user would type; learn2learn's script draws weights and tasks anew each time."""
    if name == PEER:
        numbers = [job.ways, job.queries, job.tasks, job.rate, job.every, job.val_tasks, job.steps]
        return [sys.executable, str(SCRIPTS / "contestants" / "peer_run.py"), algo, *map(str, numbers)]
    schedule = "cosine" if job.steps else "constant"
    words = [f"algo={algo}", "data=omniglot", f"optim/schedule={schedule}", f"optim.lr={job.rate}", "logger=none"]
    words += [f"data.train.n_way={job.ways}", f"data.train.n_query={job.queries}", f"run.meta_batch_size={job.tasks}"]
    words += [f"run.val_every={job.every}", f"run.val_tasks={job.val_tasks}", f"run.steps={job.steps or 100_000}"]
    words += ["algo.test_inner_steps=1"] if algo == "maml" else ["algo.temperature=1"]
    return [sys.executable, "-m", "metarun", *words, *PROGRAMS[name], f"seed={seed}", f"hydra.run.dir={folder}/run"]


def draw(found: Sequence[dict[str, Any]], target: float, out: Path) -> None:
    """Accuracy against seconds, for each method."""
    rows = [
        {"algo": one["algo"], "program": one["contestant"], "round": one["round"], **point._asdict()}
        for one in found
        for point in one["points"]
    ]
    base = alt.Chart(alt.Data(values=rows))
    curves = base.mark_line(point=True).encode(
        x=alt.X("seconds:Q", title="seconds since the command"),
        y=alt.Y("accuracy:Q", title="accuracy in validation", axis=alt.Axis(format="%"), scale=alt.Scale(zero=False)),
        color=alt.Color("program:N", title=None),
        detail="round:N",
    )
    line = alt.Chart(alt.Data(values=[{"target": target}])).mark_rule(strokeDash=[4, 4]).encode(y="target:Q")
    methods = list(dict.fromkeys(one["algo"] for one in found))
    charts = [
        alt.layer(curves.transform_filter(f"datum.algo == '{algo}'"), line).properties(
            title=algo, width=360, height=260
        )
        for algo in methods
    ]
    alt.hconcat(*charts).save(out, ppi=150)


if __name__ == "__main__":
    main(sys.argv[1:])
