"""The runs under a folder at a glance, and one run at length."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from metarun.core.scores import choose_score
from metarun.core.words import format_with_name, name_network, name_task
from metarun.report.runs import Run

STYLES = {"finished": "green", "running": "cyan", "interrupted": "yellow", "failed": "red", "died": "red"}

CHANGING = ("results.json", "metrics.jsonl", "run.log", ".hydra/config.yaml")
"""Files whose newest date is the last sign of a run."""

FILES = {
    "results.json": "status, scores with intervals, times, versions",
    "metrics.jsonl": "a line per log",
    "test_tasks.npz": "index and score of every test task",
    "checkpoints/best.pt": "the best by validation, the one tested",
    "checkpoints/last.pt": "what resuming starts from",
    "episodes.png": "the first training tasks",
    "curves.png": "learning curves",
    "predictions.png": "what is predicted of the first test functions",
    "evals": "what metarun eval found",
    "run.log": "messages and tracebacks",
    ".hydra/config.yaml": "the settings",
    "wandb": "what W&B wrote",
    "tensorboard": "tensorboard --logdir",
}


def run_table(runs: Sequence[Run], now: float) -> Table:
    """A line a run: state, what it is, its last score, how far it came, how old and how large it is."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", overflow="fold")
    table.add_column("state")
    table.add_column("what")
    tested = any(run.evaluations() for run in runs)
    for head in ("score", *(["evals"] if tested else []), "step", "age", "size"):
        table.add_column(head, justify="right", no_wrap=True)
    for run in runs:
        state = Text(run.state, style=STYLES.get(run.state, ""))
        evals = [str(len(run.evaluations()) or "")] if tested else []
        numbers = [score(run), *evals, progress(run), ago(now - last_sign(run.folder)), size(run.folder)]
        table.add_row(Text(str(run.folder)), state, Text(what(run)), *numbers)
    return table


def unsynced(runs: Sequence[Run]) -> list[str]:
    """A command for each folder of runs that uploads those of its W&B files that were not yet uploaded."""
    commands: dict[Path, list[Path]] = {}
    for run in runs:
        files = [file for file in run.folder.glob("wandb/offline-run-*/*.wandb") if not _uploaded(file)]
        if files:
            commands.setdefault(run.folder.parent, []).append(run.folder)
    return [
        f"wandb sync {quote(str(folders[0] if len(folders) == 1 else parent))}"
        f"{'' if len(folders) == 1 else '/*'}/wandb/offline-run-*"
        for parent, folders in commands.items()
    ]


def _uploaded(file: Path) -> bool:
    return file.with_name(f"{file.name}.synced").exists()  # what `wandb sync` leaves


def what(run: Run) -> str:
    """What the run is, as its folder's name would say it."""
    words = [run.value("algo"), run.value("data")]
    if (shots := _setting(run, "k_shot")) is not None:
        words.append(name_task(_setting(run, "n_way"), shots))
    words += [*name_network(run.value("backbone") or "none"), f"bn={run.value('bn')}", f"seed {run.value('seed')}"]
    words += ["trained on train and val"] if run.value("trainval") else []
    return " ".join(str(word) for word in words if word is not None)


def score(run: Run) -> str:
    """The test score, else that of the last validation."""
    test = run.results.get("test")
    if test:
        name = run.score_name
        return f"test {format_with_name(name, test[name]['mean'])}" if name in test else ""
    validations = [line for line in run.lines() if line.get("split") == "val"]
    name = choose_score(validations[-1], run.directions) if validations else ""
    return f"val {format_with_name(name, validations[-1][name])}" if validations and name in validations[-1] else ""


def progress(run: Run) -> str:
    """Outer steps made, of those asked for."""
    steps = run.results.get("steps")
    if steps is None or run.state == "running":
        steps = max((line["step"] for line in run.lines()), default=0)
    whole = run.settings.get("run.steps")
    return f"{steps}/{whole}" if isinstance(whole, int) else str(steps)


def last_sign(folder: Path) -> float:
    """When a file of the run was last written, in seconds since 1970."""
    return max((path.stat().st_mtime for name in CHANGING if (path := folder / name).exists()), default=0.0)


def ago(seconds: float) -> str:
    """A duration in its largest whole unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def size(path: Path) -> str:
    """What a file, or all files under a folder, take on the disk."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file() and not file.is_symlink()]
    amount = float(sum(file.stat().st_size for file in files))
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def unfinished_table(run: Run) -> Table:
    """What is known of a run that has no end table, and what to type next."""
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("run", Text(what(run)))
    table.add_row("state", Text(f"{run.state}, last written {ago(time.time() - last_sign(run.folder))} ago"))
    if run.results.get("error"):
        table.add_row("error", Text(str(run.results["error"])))
    table.add_row("step", progress(run))
    table.add_row("score", score(run))
    if run.state != "running":
        table.add_row("next", Text(f"metarun resume {run.folder}"))
    return table


def file_table(run: Run) -> Table:
    """The files that are in the run's folder, their size and what they are."""
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(overflow="fold")
    table.add_column(justify="right")
    table.add_column()
    for name, meaning in FILES.items():
        path = run.folder / name
        if path.exists():
            table.add_row(f"  {name}", size(path), meaning)
    return table


def _setting(run: Run, name: str) -> Any:
    return run.value(name) if run.value(name) is not None else run.value(f"data.{name}")
