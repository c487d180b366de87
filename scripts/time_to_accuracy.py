"""Seconds from the command to an accuracy in validation: metarun and learn2learn's script at the same job, in turns.

uv run --group bench python scripts/time_to_accuracy.py --json time_to_accuracy.json --png time_to_accuracy.png
uv run --group bench python scripts/time_to_accuracy.py --algos protonet --rounds 3

Omniglot, 5-way 1-shot: the same classes, network, rates, tasks of a step and validation tasks, each program with the
threads that it takes by itself. A program is ended when it is there, or after --limit seconds. With --steps the rate
falls to 0 over so many outer steps, in both as half a cosine.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
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


class Point(NamedTuple):
    """One validation: seconds since the command, outer steps, accuracy."""

    seconds: float
    step: int
    accuracy: float


def main(arguments: Sequence[str]) -> None:
    """Run what is asked for."""
    asked = parser().parse_args(arguments)
    found: list[dict[str, Any]] = []
    for algo in asked.algos.split(","):
        job = JOBS[algo]._replace(steps=asked.steps)
        for number in range(asked.rounds):
            names = ["metarun", PEER] if number % 2 == 0 else [PEER, "metarun"]
            for name in names:
                points = run(name, algo, job, asked.target, asked.limit)
                kept = {"algo": algo, "job": job._asdict(), "round": number, "contestant": name, "points": points}
                found.append(kept)
                last = points[-1] if points else Point(asked.limit, 0, 0.0)
                there = (
                    f"{100 * asked.target:.0f} %"
                    if last.accuracy >= asked.target
                    else f"not {100 * asked.target:.0f} %"
                )
                console.print(f"{algo}, {name}: {there} after {last.seconds:.0f} s, {last.step} outer steps")
            seconds = {one["contestant"]: one["points"][-1].seconds for one in found[-2:]}
            console.print(f"{algo}: metarun {seconds[PEER] / seconds['metarun']:.2f} times as fast as {PEER}")
            if asked.json:
                asked.json.write_text(json.dumps({"command": sys.argv, "target": asked.target, "runs": found}))
            if asked.png:
                draw(found, asked.target, asked.png)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--algos", default=",".join(JOBS), help=f"with commas; default {','.join(JOBS)}")
    made.add_argument("--target", type=float, default=0.95, help="accuracy in validation; default 0.95")
    made.add_argument("--steps", type=int, default=0, help="over which the rate falls to 0; default: it does not")
    made.add_argument("--rounds", type=int, default=1, help="default 1")
    made.add_argument("--limit", type=float, default=3600, help="seconds of a program; default 3600")
    made.add_argument("--json", type=Path, help="where all numbers go")
    made.add_argument("--png", type=Path, help="where the picture goes")
    return made


def run(name: str, algo: str, job: Job, target: float, limit: float) -> list[Point]:
    """The validations of one program, until one reaches the target."""
    points: list[Point] = []
    with tempfile.TemporaryDirectory(prefix="metarun-bench-") as folder:
        started = time.perf_counter()
        said = subprocess.PIPE if name == PEER else subprocess.DEVNULL
        program = subprocess.Popen(command(name, algo, job, Path(folder)), stdout=said, text=True, cwd=folder)
        try:
            for line in lines(program, Path(folder) / "run" / "metrics.jsonl", started + limit):
                found = json.loads(line)
                if found.get("split", "val") == "val":
                    points.append(Point(round(time.perf_counter() - started, 2), found["step"], found["accuracy"]))
                    console.print(f"  {name} {points[-1].seconds:.0f} s: {100 * points[-1].accuracy:.2f} %")
                    if found["accuracy"] >= target:
                        break
        finally:
            program.send_signal(signal.SIGKILL)
            program.wait()
    return points


def command(name: str, algo: str, job: Job, folder: Path) -> list[str]:
    """What a user would type."""
    if name == PEER:
        numbers = [job.ways, job.queries, job.tasks, job.rate, job.every, job.val_tasks, job.steps]
        return [sys.executable, str(SCRIPTS / "contestants" / "peer_run.py"), algo, *map(str, numbers)]
    schedule = "cosine" if job.steps else "constant"
    words = [f"algo={algo}", "data=omniglot", f"optim/schedule={schedule}", f"optim.lr={job.rate}", "logger=none"]
    words += [f"data.train.n_way={job.ways}", f"data.train.n_query={job.queries}", f"run.meta_batch_size={job.tasks}"]
    words += [f"run.val_every={job.every}", f"run.val_tasks={job.val_tasks}", f"run.steps={job.steps or 100_000}"]
    words += ["algo.test_inner_steps=1"] if algo == "maml" else ["algo.temperature=1"]
    return [sys.executable, "-m", "metarun", *words, f"hydra.run.dir={folder}/run"]


def lines(program: subprocess.Popen[str], file: Path, until: float) -> Iterator[str]:
    """What a program says of itself as it says it: on its output, or in the metrics of its run."""
    if program.stdout:
        for line in program.stdout:
            yield line
            if time.perf_counter() > until:
                return
        return
    read = 0
    while program.poll() is None and time.perf_counter() < until:
        time.sleep(0.1)
        text = file.read_text() if file.exists() else ""
        *whole, _ = text[read:].split("\n")
        read += sum(len(line) + 1 for line in whole)
        yield from whole


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
