"""`metarun resume`: go on with a run, if need be in another number of processes or on another device."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from metarun.app.commands.screen import add_run, add_trust, announce
from metarun.app.messages import make_console
from metarun.core import tuning
from metarun.core.errors import ConfigError
from metarun.core.run_folder import RunFolder
from metarun.core.screen import Screen
from metarun.core.secrets import describe_masked
from metarun.report.one_run import find_lacking, make_end

MACHINE = ("device", "threads", "run.processes")
"""Settings that may be others from now on: the numbers are the same up to rounding."""


def run_resume(parser: argparse.ArgumentParser, arguments: Sequence[str], screen: Screen) -> int:
    """Run `metarun resume RUN` and return the exit code. Raises: ConfigError for wrong input."""
    parser.description = "Go on with an interrupted run from its last checkpoint."
    add_run(parser)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="of device, threads, run.processes, paths.data, data.path and the like: what is different now",
    )
    add_trust(parser)
    asked = parser.parse_args(arguments)
    announce("going on with", asked.run, screen)
    return resume(asked.run, asked.overrides, asked.trust)


def resume(folder: Path, typed: Sequence[str], trust: bool = False) -> int:
    """Continue the run in `folder` from its last checkpoint; return the exit code.

    Args:
        folder: the run's folder.
        typed: what is different from now on, KEY=VALUE of MACHINE or of where files lie.
        trust: whether the run's settings may name code that does not come with metarun.
    Raises: ConfigError if there is no run, or something else is typed.
    """
    with tuning.frozen_imports():
        from metarun.settings.conf import GROUPS
        from metarun.settings.places import check_places, find_places
        from metarun.settings.reopen import reopen

    saved = reopen(folder, trust)
    lost = saved.find_masked()
    changes = _read_changes(typed, [*find_places(saved.config, saved.own), *lost])
    results = RunFolder(folder).read_results()
    if results.get("status") == "finished":
        screen = make_console()
        screen.print(f"{folder} is finished already")
        if not find_lacking(results):
            make_end(results, folder).show(screen)
        return 0
    saved = saved.change(changes)
    if lost := saved.find_masked():
        raise ConfigError(describe_masked(lost))
    begun = {"backbone"} if RunFolder(folder).has_checkpoint() else set()  # its weights are in the checkpoint
    check_places(saved.config, [group for group in GROUPS if group not in begun], saved.own)
    sweep = folder.resolve().parent.name if saved.swept else None
    with tuning.frozen_imports():
        from metarun.app.jobs.job import run_job

    return run_job(partial(saved.resolve, warn=True), folder, list(saved.overrides), sweep)


def _read_changes(typed: Sequence[str], places: Sequence[str]) -> dict[str, Any]:
    """Read what was typed, by key. Raises: ConfigError for a key not in MACHINE or `places`, or for several values."""
    from metarun.settings.typed import read_override

    allowed = [*MACHINE, *places]
    changes = {}
    for word in typed:
        override = read_override(word)
        if override.key not in allowed or override.deletes:
            raise ConfigError(
                f"{word} would make it another run: resume takes {'=, '.join(allowed)}=; for a new run with other "
                "settings: metarun rerun"
            )
        if len(override.values) > 1:
            raise ConfigError(f"{word} has several values, and a run goes on with one")
        changes[override.key] = override.values[0]
    return changes
