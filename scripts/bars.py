"""What methods reached, and bars that some were held against: results/bars.json, and its table in scripts/README.md.

uv run python scripts/bars.py            # writes the table between its marks
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction.tables import put_between

from metarun.core.words import is_percent

HERE = Path(__file__).parent
RESULTS, README = HERE / "results" / "bars.json", HERE / "README.md"
DERIVED = HERE / "results" / "derived.json"  # of scripts/derived.py
MARKS = "<!-- bars: written by scripts/bars.py -->", "<!-- end of bars -->"

HEADS = ("method", "tasks", "bar", "reached", "", "the paper's number", "derived tests", "command")


@dataclass(frozen=True)
class Bar:
    """What a method reached, and the bar that it was held against; None: scripts/README.md tells of it elsewhere.

    Attributes:
        on: the tasks, in a few words.
        score, mean, ci95: what was measured; half of the 95 % interval over test tasks, where it is known.
        n_tasks, seeds: test tasks, and seeds that `mean` is over.
        minutes: of CPU or of the clock, as results/bars.json says.
        outcome: whether the bar was reached, and what there is to compare with.
        paper: its number, and how far ours is from it; None: it has none on these tasks.
    """

    method: str
    on: str
    score: str
    bar: str | None
    mean: float
    ci95: float | None
    n_tasks: int
    seeds: int
    minutes: float | None
    command: str
    outcome: str
    paper: str | None = None

    def describe(self) -> str:
        """Return what was reached, as `mse 2.891 ± 0.213` or `94.8 ± 0.5 %`."""
        percent = is_percent(self.score)
        numbers = [value for value in (self.mean, self.ci95) if value is not None]
        text = " ± ".join(f"{100 * value:.1f}" if percent else f"{value:g}" for value in numbers)
        return f"{text} %" if percent else f"{self.score} {text}"


def read_bars() -> list[Bar]:
    runs: list[dict[str, Any]] = json.loads(RESULTS.read_text())["runs"]
    return [Bar(**run) for run in runs]


def list_lines() -> Iterator[str]:
    """Yield the lines of the table."""
    derived: dict[str, dict[str, float]] = json.loads(DERIVED.read_text())
    yield from ("", f"| {' | '.join(HEADS)} |", "|" + " --- |" * len(HEADS))
    for bar in read_bars():
        if not bar.bar:
            continue
        seeds = f", {bar.seeds} seeds" if bar.seeds > 1 else ""
        minutes = f", {bar.minutes:g} min" if bar.minutes else ""
        reached = f"{bar.describe()} ({bar.n_tasks:,}{seeds}{minutes})"
        error = f"{max(derived[bar.method].values()):.0e}" if bar.method in derived else ""
        cells = (
            f"`{bar.method}`",
            bar.on,
            bar.bar,
            reached,
            bar.outcome,
            bar.paper or "none",
            error,
            f"`{bar.command}`",
        )
        yield f"| {' | '.join(cells)} |"
    yield ""


def make_page() -> str:
    return put_between(README.read_text(), MARKS, list(list_lines()), str(README))


if __name__ == "__main__":
    README.write_text(make_page())
    sys.exit()
