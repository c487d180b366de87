"""`metarun WORD ...`: the command of each word. Each is imported when it is typed: few of them need torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

from metarun.app.commands.screen import HelpShown, Parser, make_wide_screen
from metarun.core import tuning
from metarun.core.errors import ConfigError, suggest
from metarun.core.screen import Screen

SUBCOMMANDS = ("compare", "data", "eval", "export", "help", "list", "predict", "replay", "rerun", "resume", "show")

Subcommand = Callable[[argparse.ArgumentParser, Sequence[str], Screen], int]


def run_subcommand(name: str, arguments: Sequence[str], command: Callable[[Sequence[str]], int]) -> int:
    """Run the subcommand and return the exit code.

    Args:
        name, arguments: what was typed.
        command: runs another command line and returns its exit code, for `metarun rerun`.
    Raises: ConfigError for wrong input.
    """
    if name not in SUBCOMMANDS:
        known = f"(there is {', '.join(SUBCOMMANDS)}; settings are KEY=VALUE)"
        raise ConfigError(f"there is no subcommand {name}{suggest(name, SUBCOMMANDS)} {known}")
    try:
        return _find(name, command)(Parser(prog=f"metarun {name}", allow_abbrev=False), arguments, make_wide_screen())
    except HelpShown:
        return 0


def _find(name: str, command: Callable[[Sequence[str]], int]) -> Subcommand:
    with tuning.frozen_imports():
        if name == "compare":
            from metarun.app.commands.compare import run_compare as found
        elif name == "data":
            from metarun.app.commands.data import run_data as found
        elif name == "eval":
            from metarun.app.commands.eval import run_eval as found
        elif name == "export":
            from metarun.app.commands.export import run_export as found
        elif name == "help":
            from metarun.app.commands.help import run_help as found
        elif name in ("list", "show"):
            from metarun.app.commands import listing

            return listing.run_list if name == "list" else listing.run_show
        elif name == "predict":
            from metarun.app.commands.predict import run_predict as found
        elif name == "replay":
            from metarun.app.commands.replay import run_replay as found
        elif name == "rerun":
            from metarun.app.commands.rerun import run_rerun

            return partial(run_rerun, command=command)
        else:
            from metarun.app.commands.resume import run_resume as found
    return found
