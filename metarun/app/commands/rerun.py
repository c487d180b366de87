"""Run again what an earlier run ran, with the settings it had then, and say what is not the same."""

from __future__ import annotations

import argparse
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metarun.app.commands.screen import add_run, add_trust
from metarun.core.command import find_key, join, keep_last
from metarun.core.errors import ConfigError
from metarun.core.identity import TOLD, is_among
from metarun.core.screen import Screen
from metarun.core.secrets import describe_masked, is_masked
from metarun.report.config_dirs import find_config_dirs, read_config_dirs
from metarun.report.runs import open_run
from metarun.run.results import read_git_state, read_versions
from metarun.settings.reopen import compose_leaves, read_saved_leaves
from metarun.settings.trust import ADVICE


def run_rerun(
    parser: argparse.ArgumentParser, arguments: Sequence[str], screen: Screen, command: Callable[[Sequence[str]], int]
) -> int:
    """Run `metarun rerun RUN` and return the exit code of `command`, which runs a command line.

    Raises: ConfigError for wrong input.
    """
    parser.description = "Run again what a run ran, with the settings it had, in a folder of its own."
    add_run(parser)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings to change, as seed=1")
    add_trust(parser)
    asked = parser.parse_args(arguments)
    typed, notes = make_arguments(asked.run, asked.overrides, asked.trust)
    screen.say(f"metarun {join(typed)}")
    for note in notes or ["the code and its packages are as they were"]:
        screen.say(note)
    return command(typed)


def make_arguments(folder: Path, more: Sequence[str], trust: bool = False) -> tuple[list[str], list[str]]:
    """Make the command line that repeats the run's settings, and a line for each difference from that time.

    A setting whose default has changed since is given its value of then; overrides in `more` come after it.

    Args:
        folder: the run's folder.
        more: overrides to add.
        trust: whether the run's settings may name code that does not come with metarun.
    Raises: ConfigError if there is no run, its overrides no longer compose, or do more than they may.
    """
    run = open_run(folder)
    own = read_config_dirs(folder)
    if own and not trust:
        raise ConfigError(f"{folder}: the run has settings of its own in {', '.join(own)}\n{ADVICE}")
    try:
        now = compose_leaves(run.overrides, own, trust, str(folder))
    except ConfigError as error:
        raise ConfigError(f"the run's settings no longer compose: {error}") from error
    # What the new overrides choose anew, a group for instance, is not held to what it was.
    kept, notes = _hold_values(read_saved_leaves(folder), now, _list_keys(more))
    notes = describe_code(run.results) + notes
    if not trust:
        compose_leaves([*run.overrides, *kept], own, trust, str(folder))
    words = keep_last([*run.overrides, *kept, *more])
    if lost := [find_key(word) for word in words if is_masked(word) and not word.startswith("paper")]:
        raise ConfigError(describe_masked(lost))
    return [*find_config_dirs(folder), *words], notes


def describe_code(results: Mapping[str, Any]) -> list[str]:
    """Describe how the program differs from the one that wrote `results`: commits, uncommitted changes, versions."""
    lines = []
    then, now = results.get("git"), read_git_state()
    if then and now and then["commit"] != now["commit"]:
        lines.append(f"code: commit {then['commit'][:10]} then, {now['commit'][:10]} now{_count_between(then, now)}")
    elif bool(then) != bool(now):
        lines.append(f"code: {_describe_place(then)} then, {_describe_place(now)} now")
    for state, when in ((then, "then"), (now, "now")):
        if state and state["dirty"]:
            lines.append(f"code: with uncommitted changes {when}")
    versions, today = results.get("versions") or {}, read_versions()
    for package in sorted({*versions, *today}):
        if versions and versions.get(package) != today.get(package):
            lines.append(f"{package}: {versions.get(package, 'none')} then, {today.get(package, 'none')} now")
    return lines


def _describe_place(state: Mapping[str, Any] | None) -> str:
    return f"commit {state['commit'][:10]}" if state else "an installed copy"


def _count_between(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Count the commits in between, if this checkout knows both."""
    span = f"{then['commit']}..{now['commit']}"
    try:
        counted = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-list", "--count", span],
            capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return f", {counted.stdout.strip()} commits later"


def _hold_values(then: Mapping[str, Any], now: Mapping[str, Any], chosen: set[str]) -> tuple[list[str], list[str]]:
    """Return overrides that give today's settings their earlier values, and notes on those that cannot be restored.

    Where the run lies and what it is shown in are today's.
    """
    overrides, notes = [], []
    for key in sorted({*then, *now}):
        if is_among(key, (*TOLD, *chosen)):
            continue
        if key not in now:
            notes.append(f"{key}={then[key]} then; there is no such setting now")
        elif key not in then:
            notes.append(f"{key}={now[key]} now; there was no such setting then")
        elif _is_same_place(then[key], now[key]):
            overrides.append(f"{key}={_format_typed(then[key])}")
        elif then[key] != now[key]:
            notes.append(f"{key}={then[key]} as then; the default is {now[key]} now")
            overrides.append(f"{key}={_format_typed(then[key])}")
    return overrides, notes


def _is_same_place(then: Any, now: Any) -> bool:
    """Return whether `now` is a relative path as it was typed, and `then` the absolute path that it meant."""
    paths = isinstance(then, str) and isinstance(now, str) and then != now and os.path.isabs(then)
    return paths and then.endswith(f"{os.sep}{os.path.normpath(now)}")


def _list_keys(overrides: Sequence[str]) -> set[str]:
    """List the keys that overrides set, as dotted prefixes; groups count as keys."""
    return {find_key(override).replace("/", ".") for override in overrides}


def _format_typed(value: Any) -> str:
    """Format a value so that Hydra's override grammar reads it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return "[" + ",".join(map(_format_typed, value)) + "]"
    if isinstance(value, str) and not value.startswith("${"):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)
