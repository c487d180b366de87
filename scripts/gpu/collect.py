"""Wait for runs that go on in the background, stop those that are late, and gather what all of them have found.

python scripts/gpu/collect.py RUNS --seconds 180 --out FOLDER

RUNS holds for each run NAME a folder, the file NAME.pid and the output NAME.log. FOLDER gets results.txt, a table, and
runs.tar.gz, everything but the checkpoints of finished runs, and large ones.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metarun.report import runs as report

LARGEST = 4 << 20
"""Bytes of a checkpoint that is kept."""

NOTICE = 20.0
"""Seconds before the end at which late runs are asked to save and stop."""


def main(arguments: Sequence[str]) -> int:
    """Write the table and the archive; 1 if a run failed."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("runs", type=Path)
    made.add_argument("--seconds", type=float, required=True, help="until late runs must have stopped")
    made.add_argument("--out", type=Path, required=True)
    asked = made.parse_args(arguments)
    wait_and_stop(asked.runs, time.monotonic() + asked.seconds)
    rows = [read_run(asked.runs, file.stem) for file in sorted(asked.runs.glob("*.pid"))]
    text = "".join(f"{line}\n" for line in format_table(rows))
    print(text, end="")
    (asked.out / "results.txt").write_text(text)
    with tarfile.open(asked.out / "runs.tar.gz", "w:gz") as archive:
        unfinished = {row["name"] for row in rows if row["state"] != "finished"}
        archive.add(asked.runs, "runs", filter=lambda member: member if is_kept(member, unfinished) else None)
    return int(any(row["state"] == "failed" for row in rows))


def is_kept(member: tarfile.TarInfo, unfinished: set[str]) -> bool:
    """Whether a file goes into the archive: checkpoints do where a run is to go on, and they are small."""
    if "/checkpoints" not in member.name:
        return True
    return member.name.split("/")[1] in unfinished and member.size < LARGEST


def wait_and_stop(runs: Path, deadline: float) -> None:
    """Return when no run goes on; send SIGTERM to late ones `NOTICE` seconds before the deadline, SIGKILL at it."""
    processes = [int(file.read_text()) for file in runs.glob("*.pid")]
    for stop, number in ((deadline - NOTICE, signal.SIGTERM), (deadline, signal.SIGKILL)):
        while (late := [process for process in processes if is_alive(process)]) and time.monotonic() < stop:
            time.sleep(0.2)
        for process in late:
            os.killpg(process, number)  # each is the leader of its group


def is_alive(process: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def read_run(runs: Path, name: str) -> dict[str, Any]:
    """Return what is known of a run: its state, steps, seconds of training, and accuracies in test and validation."""
    run = report.read_run(runs / name)
    results, metrics = (run.results, list(run.lines())) if run else ({}, [])
    last = {line["split"]: line for line in metrics}
    training, validation = last.get("train", {}), last.get("val", {})
    return {
        "name": name,
        "state": {"running": "killed"}.get(status := results.get("status", "failed"), status),
        "step": max((line["step"] for line in metrics), default=0),
        "seconds": training.get("seconds"),
        "tasks_per_second": training.get("tasks_per_second"),
        "test": (results.get("test") or {}).get("accuracy"),
        "val": validation.get("accuracy"),
    }


def format_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Format a line for each run: accuracies in percent, the interval over test tasks."""
    width = max([3, *(len(row["name"]) for row in rows)])
    lines = [f"{'run':{width}}  state       steps  seconds  tasks/s  test accuracy    validation"]
    for row in rows:
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        speed = "" if row["tasks_per_second"] is None else f"{row['tasks_per_second']:.0f}"
        test = "" if row["test"] is None else f"{100 * row['test']['mean']:.2f} ± {100 * row['test']['ci95']:.2f} %"
        val = "" if row["val"] is None else f"{100 * row['val']:.2f} %"
        lines.append(
            f"{row['name']:{width}}  {row['state']:10}  {row['step']:5}  {seconds:>7}  {speed:>7}  {test:15}  {val}"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
