"""What the subcommands read and print: a parser that says what is wrong in a line, and a wide screen."""

from __future__ import annotations

import argparse
import os
from typing import Any, NoReturn

from metarun.core.errors import ConfigError, suggest
from metarun.core.screen import Screen

WIDTH_WITHOUT_TERMINAL = 200
"""Columns where there is no terminal and COLUMNS says nothing: enough for one line a run."""


class Parser(argparse.ArgumentParser):
    """Reports an error in one line, and shows the right usage."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Read the arguments. Flags may stand between other arguments."""
        return self.parse_intermixed_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        flags = [flag for action in self._actions for flag in action.option_strings]
        word = next((word.split("=")[0] for word in message.split() if word.startswith("--")), "")
        hint = suggest(word, flags) if message.startswith("unrecognized") and word else ""
        raise ConfigError(f"{self.prog.removeprefix('metarun ')}: {message}{hint}. {self.format_usage().strip()}")


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the flag that lets the settings in a run's folder name code that is not metarun's."""
    parser.add_argument("--trust", action="store_true", help="let the run's settings name code that is not metarun's")


def make_wide_screen() -> Screen:
    """Return standard output, wide enough for one line per run if it is not a terminal."""
    return Screen(width=None if "COLUMNS" in os.environ else WIDTH_WITHOUT_TERMINAL)
