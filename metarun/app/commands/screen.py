"""What the subcommands read and print: a parser that says what is wrong in a line, and a wide screen."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, NoReturn

from metarun.core.errors import ConfigError, suggest
from metarun.core.run_folder import RunFolder
from metarun.core.screen import Screen
from metarun.report.listing import describe_run
from metarun.report.references import find_folder
from metarun.report.runs import read_run

WIDTH_WITHOUT_TERMINAL = 200
"""Columns where there is no terminal and COLUMNS says nothing: enough for one line per run."""

RUN_HELP = "the run's folder; or its id in `metarun list`, or the end of its name; or `last`"


class HelpShown(Exception):
    """A parser has shown its help, and there is nothing else to do."""


class Parser(argparse.ArgumentParser):
    """Reports an error in one line, and shows the right usage."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Read the arguments. Flags may stand between other arguments."""
        return self.parse_intermixed_args(args, namespace)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise HelpShown

    def error(self, message: str) -> NoReturn:
        flags = [flag for action in self._actions for flag in action.option_strings]
        word = next((word.split("=")[0] for word in message.split() if word.startswith("--")), "")
        hint = suggest(word, flags) if message.startswith("unrecognized") and word else ""
        raise ConfigError(f"{self.prog.removeprefix('metarun ')}: {message}{hint}. {self.format_usage().strip()}")


class FindRun(argparse.Action):
    """Stores the folder of the run that was called by its path, its id, the end of its name, or `last`."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        several = self.nargs == "+"
        found = [find_folder(word, several) for word in values] if several else find_folder(values)
        setattr(namespace, self.dest, found)


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the argument RUN, which becomes the path of the run's folder."""
    parser.add_argument("run", action=FindRun, metavar="RUN", help=RUN_HELP)


def announce(what: str, folder: Path, screen: Screen) -> None:
    """Say what is done with which run, before the seconds that torch's import takes.

    Raises: ConfigError if there is no run in the folder.
    """
    RunFolder(folder).check()
    if (run := read_run(folder)) and run.settings:
        screen.say(f"{what} {describe_run(run)}: {folder}/")


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the flag that lets the settings in a run's folder name code that is not metarun's."""
    parser.add_argument("--trust", action="store_true", help="let the run's settings name code that is not metarun's")


def make_wide_screen() -> Screen:
    """Return standard output, wide enough for one line per run if it is not a terminal."""
    return Screen(width=None if "COLUMNS" in os.environ else WIDTH_WITHOUT_TERMINAL)
