"""The runs under a folder at a glance, and one run at length."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metarun.core.scores import choose_score
from metarun.core.screen import Facts
from metarun.core.whole import find_time
from metarun.core.words import abbreviate_task, format_with_name, name_network, name_task
from metarun.report.references import name_shortly
from metarun.report.runs import Run

NARROW, WIDE = 110, 160
"""Columns below which words are shortened, and from which on folders are shown."""

STATE_STYLES = {"finished": "green", "running": "cyan", "interrupted": "yellow"}
STATE_STYLES |= dict.fromkeys(("failed", "died", "damaged"), "red")

CHANGING_FILES = ("results.json", "metrics.jsonl", "run.log", ".hydra/config.yaml")
"""Files that change while a run goes on."""

FILE_MEANINGS = {
    "results.json": "status, scores with intervals, times, versions",
    "metrics.jsonl": "a line for each log",
    "test_tasks.npz": "index and score of every test task",
    "checkpoints/best.pt": "the best by validation, the one tested",
    "checkpoints/last.pt": "a resumed run starts from it",
    "checkpoints/previous.pt": "the one before it, should the last be damaged",
    "episodes.png": "the first training tasks",
    "curves.png": "learning curves",
    "predictions.png": "predictions for the first test functions",
    "evals": "results of metarun eval",
    "run.log": "messages and tracebacks",
    ".hydra/config.yaml": "the settings",
    "wandb": "W&B's files",
    "tensorboard": "tensorboard --logdir",
}


def make_run_table(runs: Sequence[Run], now: float, width: int) -> Table:
    """Make a table with a line for each run: its id, state, name, last score, progress, age and size.

    Args:
        runs: in the order of the lines.
        now: seconds since 1970.
        width: columns of the screen; shorter words where longer ones do not fit, on a wide one the folders too.
    """
    table = _make_table(runs, now, width, name_briefly if width < NARROW else describe_run)
    if NARROW <= width < WIDE and Console(width=10 * width).measure(table).maximum > width:
        return _make_table(runs, now, width, name_briefly)
    return table


def _make_table(runs: Sequence[Run], now: float, width: int, name: Callable[[Run], str]) -> Table:
    narrow, wide = width < NARROW, width >= WIDE
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", no_wrap=not narrow, overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("what", overflow="fold")
    tested = not narrow and any(run.evaluations() for run in runs)
    told = any(map(describe_notes, runs))
    for head in ("score", *(["evals"] if tested else []), "step", "age", *([] if narrow else ["size"])):
        table.add_column(head, justify="right", no_wrap=True)
    for head in (*(["notes"] if told else []), *(["folder"] if wide else [])):
        table.add_column(head, overflow="fold")
    names = name_shortly([run.folder for run in runs])
    for run in runs:
        table.add_row(
            Text(names[run.folder]),
            Text(run.state, style=STATE_STYLES.get(run.state, "")),
            Text(name(run)),
            describe_score(run),
            *([str(len(run.evaluations()) or "")] if tested else []),
            describe_progress(run),
            format_age(now - find_last_change(run.folder)),
            *([] if narrow else [format_size(run.folder)]),
            *([Text(describe_notes(run))] if told else []),
            *([Text(str(run.folder))] if wide else []),
        )
    return table


def describe_run(run: Run) -> str:
    """Describe the run in the words of its folder's name."""
    words = [run.value("algo"), run.value("data")]
    if (shots := _read_setting(run, "k_shot")) is not None:
        words.append(name_task(_read_setting(run, "n_way"), shots))
    words += [*name_network(run.value("backbone") or "none"), f"bn={run.value('bn')}", f"seed {run.value('seed')}"]
    words += ["trained on train and val"] if run.value("trainval") else []
    return " ".join(str(word) for word in words if word is not None)


def name_briefly(run: Run) -> str:
    """Name the run in a few letters, as `maml glyphs 5w1s s0`."""
    task = abbreviate_task(_read_setting(run, "n_way"), _read_setting(run, "k_shot"))
    words = [run.value("algo"), run.value("data"), task or None, f"s{run.value('seed')}"]
    return " ".join(str(word) for word in words if word is not None)


def was_refused(run: Run) -> bool:
    """Return whether the run, a job of a sweep, was refused before it began: its settings or its data were wrong."""
    return run.state == "failed" and "steps" not in run.results


def describe_notes(run: Run) -> str:
    """Return the run's tags, with a # before each, and its notes."""
    tags, notes = run.results.get("tags"), run.results.get("notes")
    words = [f"#{tag}" for tag in tags] if isinstance(tags, list) else []
    return " ".join([*words, str(notes)] if notes else words)


def describe_score(run: Run) -> str:
    """Describe the test score, or else the score of the last validation."""
    test = run.results.get("test")
    if test:
        name = run.score_name
        return f"test {format_with_name(name, test[name]['mean'])}" if name in test else ""
    validations = [line for line in run.lines() if line.get("split") == "val"]
    name = choose_score(validations[-1], run.directions) if validations else ""
    return f"val {format_with_name(name, validations[-1][name])}" if validations and name in validations[-1] else ""


def describe_progress(run: Run) -> str:
    """Return the outer steps made and those planned, as 20/100."""
    steps = run.results.get("steps")
    if steps is None or run.state == "running":
        steps = max((line["step"] for line in run.lines()), default=0)
    whole = run.settings.get("run.steps")
    return f"{steps}/{whole}" if isinstance(whole, int) else str(steps)


def find_last_change(folder: Path) -> float:
    """Return when a file of the run was last written, in seconds since 1970."""
    return max(find_time(folder / name) or 0 for name in CHANGING_FILES) / 1e9


def format_age(seconds: float) -> str:
    """Format a duration in its largest whole unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def format_size(path: Path) -> str:
    """Format the size on the disk of a file, or of all files under a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file() and not file.is_symlink()]
    amount = float(sum(file.stat().st_size for file in files))
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def make_unfinished(run: Run) -> Facts:
    """Make the facts of a run that has not finished: its state, its progress and the next command."""
    facts = Facts()
    facts.add("run", describe_run(run))
    facts.add("state", f"{run.state}, last written {format_age(time.time() - find_last_change(run.folder))} ago")
    if run.results.get("error"):
        facts.add("error", run.results["error"])
    facts.add("step", describe_progress(run))
    facts.add("score", describe_score(run))
    if run.state != "running":
        facts.add_command("next", run.files.make_command("resume"))
    return facts


def make_file_table(run: Run) -> Table:
    """Make a table of the files in the run's folder with their sizes and meanings."""
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(overflow="fold")
    table.add_column(justify="right")
    table.add_column()
    for name, meaning in FILE_MEANINGS.items():
        path = run.folder / name
        if path.exists():
            table.add_row(f"  {name}", format_size(path), meaning)
    return table


def _read_setting(run: Run, name: str) -> Any:
    return run.value(name) if run.value(name) is not None else run.value(f"data.{name}")
