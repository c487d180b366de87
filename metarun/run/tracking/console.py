"""The progress of a run on the screen: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.live import Live
from rich.text import Text

from metarun.core import words
from metarun.core.scores import PRIMARY_SCORES
from metarun.core.screen import Screen

SECONDS_BETWEEN_LINES = 5.0
"""Least seconds between lines without a terminal."""


class ConsoleSink:
    """Shows loss, score, tasks per second and remaining time, in a live line in a terminal, else in plain lines.

    Args:
        screen: where to print.
        steps: outer steps of the whole run.
    """

    shows = False
    id: str | None = None
    notes: Sequence[str] = ()

    def __init__(self, screen: Screen, steps: int) -> None:
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
            self.screen.print(Text(f"step {step:>6}  val {words.join_scores(metrics)}"))
        if self.live:
            self.live.update(Text(line))
        elif split == "train" and (time.monotonic() - self.printed > SECONDS_BETWEEN_LINES or step == self.steps):
            self.printed = time.monotonic()
            self.screen.print(Text(line))

    def show(self, name: str, file: Path) -> None:
        pass

    def finish(self, results: Mapping[str, Any], exit_code: int) -> None:
        if self.live:
            self.live.stop()

    def _line(self, step: int) -> str:
        train = self.last.get("train", {})
        left = (self.steps - step) * train["seconds"] / step if train else 0.0
        shown = {name: value for name, value in train.items() if name in ("loss", *PRIMARY_SCORES)}
        return (
            f"step {step:>6}/{self.steps}  train {words.join_scores(shown)}"
            f"  {train.get('tasks_per_second', 0):.0f} tasks/s  {words.format_duration(left)} left"
        )
