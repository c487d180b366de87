"""What the subcommands read and print: a parser that says what is wrong in a line, and a wide screen."""

from __future__ import annotations

import argparse
import os
from typing import NoReturn

from rich.console import Console

from metarun.core.errors import ConfigError, suggest

WIDTH_WITHOUT_TERMINAL = 200
"""Columns where there is no terminal and COLUMNS says nothing: enough for one line a run."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and how it is typed."""

    def error(self, message: str) -> NoReturn:
        flags = [flag for action in self._actions for flag in action.option_strings]
        word = next((word.split("=")[0] for word in message.split() if word.startswith("--")), "")
        hint = suggest(word, flags) if message.startswith("unrecognized") and word else ""
        raise ConfigError(f"{self.prog.removeprefix('metarun ')}: {message}{hint}. {self.format_usage().strip()}")


def wide_screen() -> Console:
    """Standard output; wide enough for a line a run where it is not a terminal."""
    screen = Console(highlight=False)
    told = screen.is_terminal or "COLUMNS" in os.environ
    return screen if told else Console(highlight=False, width=WIDTH_WITHOUT_TERMINAL)
