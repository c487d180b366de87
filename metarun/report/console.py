"""What a person sees: the settings at the start, a live line, the table at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from metarun.report import words
from metarun.report.stats import TELLING, selection_score

PLAIN_EVERY = 5.0
"""Seconds between lines where there is no terminal."""


def console(quiet: bool = False) -> Console:
    """Standard output; wide where it is not a terminal."""
    screen = Console(highlight=False, quiet=quiet)
    return screen if screen.is_terminal else Console(highlight=False, quiet=quiet, width=120)


def start_logging(folder: Path, screen: Console) -> list[logging.Handler]:
    """Send metarun's messages to the screen and, with everything else, to run.log; returns what to remove again."""
    file = logging.FileHandler(folder / "run.log")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    shown = Shown(screen)
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(file)
    root.addHandler(shown)
    return [file, shown]


def stop_logging(handlers: list[logging.Handler]) -> None:
    """Undo `start_logging`."""
    for handler in handlers:
        logging.getLogger().removeHandler(handler)
        handler.close()


@contextmanager
def messages(screen: Console) -> Iterator[None]:
    """Inside, what the program has to say goes to the screen."""
    handler = Shown(screen)
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


class Shown(logging.Handler):
    """Prints metarun's own messages, tracebacks aside."""

    def __init__(self, screen: Console) -> None:
        super().__init__()
        self.screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("metarun") and record.exc_info is None:
            self.screen.print(Text(record.getMessage()))


def config_tree(config: dict[str, Any], choices: dict[str, str]) -> Tree:
    """The resolved settings as a tree, with the choice made in each group."""
    tree = Tree("settings", guide_style="dim")
    for key, value in config.items():
        if isinstance(value, dict):
            branch = tree.add(f"[bold]{key}[/bold]" + (f" = {choices[key]}" if key in choices else ""))
            _grow(branch, value)
        else:
            tree.add(Text(f"{key}: {value}"))
    return tree


def _grow(branch: Tree, values: dict[str, Any]) -> None:
    plain = [f"{key}: {value}" for key, value in values.items() if not isinstance(value, dict) and key[0] != "_"]
    if plain:
        branch.add(Text("  ".join(plain), overflow="fold"))
    for key, value in values.items():
        if isinstance(value, dict):
            _grow(branch.add(key), value)


class ConsoleSink:
    """A live line in a terminal, plain lines elsewhere, with loss, score, tasks per second and time to go.

    Args:
        screen: where to print.
        steps: outer steps of the whole run.
    """

    shows = False

    def __init__(self, screen: Console, steps: int) -> None:
        self.screen, self.steps = screen, steps
        live = screen.is_terminal and not screen.quiet
        self.live = Live(console=screen, refresh_per_second=4, transient=True) if live else None
        self.last: dict[str, dict[str, float]] = {}
        self.printed = 0.0
        if self.live:
            self.live.start()
            self.live.update(Text(f"step      0/{steps}"))

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        self.last[split] = metrics
        line = self._line(step)
        if split == "val":
            self.screen.print(Text(f"step {step:>6}  val {words.in_a_line(metrics)}"))
        if self.live:
            self.live.update(Text(line))
        elif split == "train" and (time.monotonic() - self.printed > PLAIN_EVERY or step == self.steps):
            self.printed = time.monotonic()
            self.screen.print(Text(line))

    def show(self, name: str, file: Path) -> None:
        pass

    def finish(self, results: dict[str, Any], exit_code: int) -> None:
        if self.live:
            self.live.stop()

    def _line(self, step: int) -> str:
        train = self.last.get("train", {})
        left = (self.steps - step) * train["seconds"] / step if train else 0.0
        shown = {name: value for name, value in train.items() if name in ("loss", *TELLING)}
        return (
            f"step {step:>6}/{self.steps}  train {words.in_a_line(shown)}"
            f"  {train.get('tasks_per_second', 0):.0f} tasks/s  {duration(left)} left"
        )


def duration(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def end_table(results: dict[str, Any], folder: Path, notes: list[str]) -> Table:
    """The run in a few lines: what it reached, how long it took, where everything is, what to type next."""
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    r = results
    task = words.task(r["n_way"], r["k_shot"])
    what = [f"{r['algo']} on {r['data']}", task, *words.network(r["backbone"]), f"bn={r['bn']}", f"seed {r['seed']}"]
    what += ["trained on train and val"] if r.get("trainval") else []
    table.add_row("run", ", ".join(what))
    for name, test in (r.get("test") or {}).items():
        value = f"{words.with_unit(name, test['mean'])} ± {words.with_unit(name, test['ci95'])}"
        table.add_row(f"test {name}", f"{value}  (95 % interval, {test['interval']}, {test['n_tasks']} of them)")
    if r.get("paper"):
        known = [r["paper"][key] for key in ("value", "ci95") if r["paper"][key] is not None]
        value = " ± ".join(words.with_unit(selection_score(r["test"]), number) for number in known)
        table.add_row("paper", f"{value}  ({r['paper']['source']})")
    table.add_row("validation", f"{words.in_a_line(r['val'])} at step {r['best_step']} of {r['steps']}, the one tested")
    time_of = {name: duration(value) for name, value in r["seconds"].items()}
    speed = f" at {r['tasks_per_second']:.0f} tasks/s" if r["tasks_per_second"] else ""
    parts = f"training {time_of['train']}{speed}, validation {time_of['val']}, test {time_of['test']}"
    table.add_row("time", f"{time_of['total']}: {parts}")
    engine = f"{r['engine']} on {r['device']}{words.in_processes(r.get('processes', 1))}"
    table.add_row("engine", f"{engine}, {r['parameters']:,} parameters")
    table.add_row("files", f"{folder}/  results.json  metrics.jsonl  test_tasks.npz  checkpoints/best.pt")
    for note in notes:
        table.add_row("", note)
    others = [o for o in r["overrides"] if not o.startswith(("seed=", "hydra."))]
    again = " ".join(["metarun", *others, f"seed={r['seed'] + 1}"])
    table.add_row("next", f"{again}   (an interval over seeds wants three)")
    return table
