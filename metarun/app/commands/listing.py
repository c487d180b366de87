"""`metarun list` and `metarun show`: the runs under a folder, and one run."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from rich.text import Text

from metarun.app.commands.screen import add_run
from metarun.core.command import quote
from metarun.core.errors import ConfigError
from metarun.core.identity import read_yaml
from metarun.core.screen import Screen
from metarun.report import retests
from metarun.report.figures.curves import draw_curves
from metarun.report.listing import make_file_table, make_run_table, make_unfinished, was_refused
from metarun.report.one_run import find_lacking, make_config_tree, make_end
from metarun.report.references import find_folder, find_start
from metarun.report.runs import find_runs, read_run
from metarun.run.tracking.uploads import TITLE, list_uploads


def run_list(parser: argparse.ArgumentParser, arguments: Sequence[str], screen: Screen) -> int:
    """Run `metarun list PATH` and return the exit code."""
    parser.description = "List the runs under a folder with their ids, states and scores, the newest last."
    parser.add_argument("path", nargs="?", metavar="PATH", default="outputs", help="a folder; default: outputs")
    parser.add_argument("--all", action="store_true", help="runs that were refused, too")
    asked = parser.parse_args(arguments)

    path = find_folder(asked.path, several=True)
    runs = sorted(find_runs([path]), key=lambda run: find_start(run.folder))
    started = [run for run in runs if run.state != "unstarted" and (asked.all or not was_refused(run))]
    if started:
        screen.print(make_run_table(started, time.time(), screen.width))
        commands = list_uploads({run.folder: run.state for run in started})
        for line in [TITLE, *commands] if commands else []:
            screen.say(line)
    else:
        screen.print(f"there is no run under {path}")
    for run in runs:
        for problem in [*([run.damage] if run.damage else []), *run.find_damages()]:
            screen.say(problem)
    unstarted = [run for run in runs if run.state == "unstarted"]
    refused = [run for run in runs if was_refused(run)]
    if unstarted:
        screen.print(f"{len(unstarted)} with settings alone, never started: {unstarted[0].folder} ...")
    if refused and not asked.all:
        screen.print(f"{len(refused)} refused for their settings or data; --all shows them")
    return 0


def run_show(parser: argparse.ArgumentParser, arguments: Sequence[str], screen: Screen) -> int:
    """Run `metarun show RUN` and return the exit code. Raises: ConfigError if there is no such run."""
    parser.description = "Show one run: its end table, its files, and its curves over the outer steps."
    add_run(parser)
    parser.add_argument("--settings", action="store_true", help="all of its settings, by group")
    asked = parser.parse_args(arguments)
    folder = asked.run

    run = read_run(folder)
    if run is None:
        inside = [str(found.folder) for found in find_runs([folder])]
        hint = f"; it has runs in it: metarun list {quote(folder)}" if inside else ""
        raise ConfigError(f"{folder} is not the folder of a run{hint}")
    if run.damage:
        raise ConfigError(run.damage)
    if run.state == "finished" and (lacking := find_lacking(run.results)):
        raise ConfigError(
            f"{run.files.results} has no {', '.join(lacking)}: metarun compare {quote(folder)} may still do"
        )
    if asked.settings:
        config = read_yaml(run.files.settings)
        chosen = {group: run.settings[group] for group in config if isinstance(run.settings.get(group), str)}
        screen.print(make_config_tree(config, chosen))
        return 0
    (make_end(run.results, folder) if run.state == "finished" else make_unfinished(run)).show(screen)
    screen.print(f"\nin {folder}/")
    screen.print(make_file_table(run))
    if found := run.evaluations():
        screen.print()
        screen.print(retests.make_table(found))
    for problem in run.find_damages():
        screen.say(problem)
    for drawing in draw_curves(run, min(screen.width, 100), screen.is_terminal and not screen.no_color):
        screen.print()
        screen.print(Text.from_ansi(drawing), soft_wrap=True)
    return 0
