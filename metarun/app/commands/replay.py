"""`metarun replay`: an outer step of a run again, task by task."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich import box
from rich.table import Table

from metarun.app.commands.screen import add_run, add_trust, announce
from metarun.app.messages import show_messages
from metarun.core import tuning
from metarun.core.screen import Screen


def run_replay(parser: argparse.ArgumentParser, arguments: Sequence[str], screen: Screen) -> int:
    """Run `metarun replay RUN --step S` and return the exit code. Raises: ConfigError for wrong input."""
    parser.description = (
        "Make an outer step of a run again, from its last checkpoint before it, and show the loss and the gradient of "
        "each of its tasks."
    )
    add_run(parser)
    parser.add_argument("--step", type=int, required=True, metavar="S", help="the outer step, from 1")
    parser.add_argument("--task", type=int, metavar="I", help="this task alone, from 0; its tensors are written")
    add_trust(parser)
    asked = parser.parse_args(arguments)
    announce("replaying", asked.run, screen)
    with tuning.frozen_imports():
        from metarun.app.jobs.replayed import replay

    with show_messages(screen):
        found = replay(asked.run, asked.step, asked.task, asked.trust, screen.say)
    names = list(dict.fromkeys(name for _, one in found for name in one.metrics))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("task", *names, "gradient"):
        table.add_column(name, justify="right")
    table.add_column("")
    for number, one in found:
        numbers = [f"{one.metrics[name]:.4g}" if name in one.metrics else "" for name in names]
        table.add_row(str(number), *numbers, f"{one.gradient:.4g}", one.problem, style="bold" if one.problem else "")
    screen.print(table)
    return 0
