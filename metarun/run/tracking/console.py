"""The progress of a run on the screen: a live bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from metarun.core import words
from metarun.core.scores import PRIMARY_SCORES, choose_score, is_better
from metarun.core.screen import Screen
from metarun.run.tracking.sink import RunInfo

SECONDS_BETWEEN_LINES = 5.0
"""Least seconds between lines without a terminal."""


class ConsoleSink:
    """Shows step, rate, time, scores and the best so far: in a live bar in a terminal, else in plain lines.

    Args:
        screen: where to print.
        steps: outer steps of the whole run.
        labels: what is said of the tasks of a split beside its scores.
        info: facts of the run; None for a run of which nothing is known.
    """

    shows = False
    id: str | None = None
    notes: Sequence[str] = ()

    def __init__(
        self, screen: Screen, steps: int, labels: Mapping[str, str] | None = None, info: RunInfo | None = None
    ) -> None:
        self.screen, self.steps, self.labels = screen, steps, labels or {}
        self.directions = info.directions if info else {}
        self.best, self.best_step = dict(info.best if info else {}), 0
        self.step, self.started = (info.logged[-1]["step"] if info and info.logged else 0), time.monotonic()
        self.last: dict[str, dict[str, float]] = {}
        self.printed = 0.0
        live = screen.is_terminal and not screen.quiet
        self.live: Live | None = None
        if live:
            self.live = Live(console=screen, refresh_per_second=4, transient=True, get_renderable=self._draw)
            self.live.start()

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        self.last[split], self.step = metrics, max(step, self.step)
        if split == "val":
            self.screen.print(Text(self._describe_validation(step, metrics)))
        if self.live:
            self.live.refresh()
        elif split == "train" and (time.monotonic() - self.printed > SECONDS_BETWEEN_LINES or step == self.steps):
            self.printed = time.monotonic()
            line = [f"step {step:>6}/{self.steps}", self._describe_training(), self._describe_rate()]
            self.screen.print(Text("  ".join(line)))

    def show(self, name: str, file: Path) -> None:
        pass

    def finish(self, results: Mapping[str, Any], exit_code: int) -> None:
        if self.live:
            self.live.stop()

    def _draw(self) -> Group:
        """Draw the bar: one line of how far and how fast, one of how well. It fits into 80 columns."""
        bar = Table.grid(padding=(0, 2, 0, 0), expand=True)
        bar.add_column(no_wrap=True)
        bar.add_column(ratio=1, min_width=8)
        bar.add_column(no_wrap=True)
        elapsed = words.format_duration(time.monotonic() - self.started)
        state = Text(f"step {self.step}/{self.steps}", "bold")
        bar.add_row(state, ProgressBar(self.steps, self.step), Text(f"{self._describe_rate()}  {elapsed} elapsed"))
        best = ""
        if self.best:
            score = choose_score(self.best, self.directions)
            where = f" at {self.best_step}" if self.best_step else ""
            best = f"best {words.format_with_name(score, self.best[score])}{where}"
        told = Text("  ".join(filter(None, [self._describe_training(), best])), no_wrap=True, overflow="ellipsis")
        return Group(bar, told)

    def _describe_validation(self, step: int, metrics: dict[str, float]) -> str:
        score = choose_score(metrics, self.directions)
        better = is_better(score, metrics[score], self.best.get(score), self.directions)
        if better:
            self.best, self.best_step = dict(metrics), step
        mark = "  the best so far" if better and step else ""
        return f"step {step:>6}  val {self._label('val')}{words.join_scores(metrics)}{mark}"

    def _describe_training(self) -> str:
        shown = {name: value for name, value in self.last.get("train", {}).items() if name in ("loss", *PRIMARY_SCORES)}
        return f"train {self._label('train')}{words.join_scores(shown)}" if shown else ""

    def _describe_rate(self) -> str:
        """Describe steps and tasks a second, and the time that the steps still to make would take."""
        train = self.last.get("train", {})
        if not train.get("seconds"):
            return "starting"
        steps, tasks = self.step / train["seconds"], train.get("tasks_per_second", 0.0)
        left = words.format_duration((self.steps - self.step) / steps) if steps else "?"
        return f"{words.format_rate(steps)} steps/s  {words.format_rate(tasks)} tasks/s  {left} left"

    def _label(self, split: str) -> str:
        return f"({self.labels[split]}) " if split in self.labels else ""
