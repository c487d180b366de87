"""What the subcommands read and print: a parser that says what is wrong in a line, and a wide screen."""

from __future__ import annotations

import argparse
import os
from typing import Any, NoReturn

from rich.console import Console

from metarun.core.errors import ConfigError, suggest

WIDTH_WITHOUT_TERMINAL = 200
"""Columns where there is no terminal and COLUMNS says nothing: enough for one line a run."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and how it is typed."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Read the arguments; flags may stand between others."""
        return self.parse_intermixed_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        flags = [flag for action in self._actions for flag in action.option_strings]
        word = next((word.split("=")[0] for word in message.split() if word.startswith("--")), "")
        hint = suggest(word, flags) if message.startswith("unrecognized") and word else ""
        raise ConfigError(f"{self.prog.removeprefix('metarun ')}: {message}{hint}. {self.format_usage().strip()}")


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the flag without which the settings in a run's folder name no code but metarun's."""
    parser.add_argument("--trust", action="store_true", help="let the run's settings name code that is not metarun's")


def wide_screen() -> Console:
    """Standard output; wide enough for a line a run where it is not a terminal."""
    screen = Console(highlight=False)
    told = screen.is_terminal or "COLUMNS" in os.environ
    return screen if told else Console(highlight=False, width=WIDTH_WITHOUT_TERMINAL)
