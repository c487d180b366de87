"""What `metarun WORD ...` does: compare, data, eval, list, show, resume, rerun. Imports no torch but to run."""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from metarun import machine
from metarun.errors import ConfigError, nearest

if TYPE_CHECKING:
    from rich.console import Console

    from metarun.report.compare import Comparison

SUBCOMMANDS = ("compare", "data", "eval", "list", "rerun", "resume", "show")

UNTOLD = 200
"""Columns where there is no terminal and COLUMNS says nothing: a line a run."""


def run_subcommand(name: str, arguments: Sequence[str]) -> int:
    """Do what the subcommand says; returns the exit code. Raises: ConfigError for wrong input."""
    if name not in SUBCOMMANDS:
        known = f"(there is {', '.join(SUBCOMMANDS)}; settings are KEY=VALUE)"
        raise ConfigError(f"there is no subcommand {name}{nearest(name, SUBCOMMANDS)} {known}")
    do: dict[str, Callable[[_Parser, Sequence[str]], int]] = {
        "compare": _compare, "data": _data, "eval": _eval, "list": _list, "rerun": _rerun, "resume": _resume,
        "show": _show,
    }  # fmt: skip
    try:
        return do[name](_Parser(prog=f"metarun {name}", allow_abbrev=False), arguments)
    except SystemExit as done:  # --help
        return int(done.code or 0)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and how it is typed."""

    def error(self, message: str) -> NoReturn:
        flags = [flag for action in self._actions for flag in action.option_strings]
        word = next((word.split("=")[0] for word in message.split() if word.startswith("--")), "")
        hint = nearest(word, flags) if message.startswith("unrecognized") and word else ""
        raise ConfigError(f"{self.prog.removeprefix('metarun ')}: {message}{hint}. {self.format_usage().strip()}")


def _compare(parser: _Parser, arguments: Sequence[str]) -> int:
    from metarun.report import tables
    from metarun.report.compare import compare
    from metarun.report.files import write
    from metarun.report.runs import find_runs

    parser.description = "Compare finished runs, task by task, in one table for each set that may be compared."
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="folders with runs in or under them")
    parser.add_argument("--by", metavar="KEYS", help="algo,data.k_shot ...; default: the settings that differ")
    parser.add_argument("--over", metavar="KEYS", default="seed", help="keys to average over; default: seed")
    parser.add_argument("--metric", help="a score of results.json; default: accuracy, return, log_likelihood or mse")
    parser.add_argument("--baseline", metavar="KEY=VALUE,...", help="hold the others against it; default: the best")
    for form in ("csv", "markdown", "latex"):
        parser.add_argument(f"--{form}", type=Path, metavar="FILE", help=f"write the tables as {form} too")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write tables and figures as one page")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw all figures; into a folder: a file each")
    asked = parser.parse_args(arguments)
    baseline = _pairs(asked.baseline) if asked.baseline is not None else None
    runs = find_runs(asked.paths)
    finished = [run for run in runs if run.state == "finished"]
    states = Counter(run.state for run in runs if run.state != "finished")
    others = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    if not finished:
        where = " ".join(map(str, asked.paths))
        raise ConfigError(f"no finished run is under {where}" + (f", only {others}" if others else ""))
    by = _words(asked.by) if asked.by is not None else None
    comparisons, notes = compare(finished, by, _words(asked.over), asked.metric, baseline)
    if others:
        notes.append(f"runs that have not finished are left out: {others}")
    screen = _wide()
    for table in tables.on_screen(comparisons):
        screen.print(table)
    for note in notes:
        screen.print(note, markup=False)
    for path, written in (
        (asked.csv, tables.as_csv), (asked.markdown, tables.as_markdown), (asked.latex, tables.as_latex)
    ):  # fmt: skip
        if path:
            write(path, written(comparisons).encode())
    if asked.html or asked.png:
        _draw(asked.html, asked.png, comparisons, notes, ["compare", *arguments])
    return 0


def _draw(
    html: Path | None, png: Path | None, comparisons: Sequence[Comparison], notes: Sequence[str], command: Sequence[str]
) -> None:
    """Imports the drawing library, which takes a second."""
    from metarun.report import figures
    from metarun.report.files import write
    from metarun.report.gallery import apart, gallery, together
    from metarun.report.page import page

    found = gallery(comparisons)
    if html:
        write(html, page(comparisons, found, notes, command).encode())
    if png:
        views = apart(found)
        if not views:
            raise ConfigError(f"there is nothing to draw for {png}: one group, and no metrics.jsonl with its curves")
        if png.is_dir():
            for name, view in views.items():
                write(png / f"{name}.png", figures.png(view))
        else:
            write(png, figures.png(together(comparisons, found)))


def _data(parser: _Parser, arguments: Sequence[str]) -> int:
    from metarun.sources import data_command

    return data_command(parser, arguments, _wide())


def _eval(parser: _Parser, arguments: Sequence[str]) -> int:
    with machine.lasting():
        from metarun.eval import eval_command

    return eval_command(parser, arguments, _wide())


def _list(parser: _Parser, arguments: Sequence[str]) -> int:
    parser.description = "List the runs under a folder with their state, score, age and size."
    parser.add_argument(
        "path", nargs="?", type=Path, metavar="PATH", default=Path("outputs"), help="a folder; default: outputs"
    )
    path = parser.parse_args(arguments).path
    from metarun.report.listing import run_table, unsynced
    from metarun.report.runs import find_runs

    runs = find_runs([path])
    started = [run for run in runs if run.state != "unstarted"]
    screen = _wide()
    if started:
        screen.print(run_table(started, time.time()))
        commands = unsynced(started)
        for line in ["not uploaded to W&B yet:", *commands] if commands else []:
            screen.print(line, markup=False, soft_wrap=True)
    else:
        screen.print(f"there is no run under {path}", markup=False)
    if len(started) < len(runs):
        first = next(run.folder for run in runs if run.state == "unstarted")
        screen.print(f"{len(runs) - len(started)} with settings alone, never started: {first} ...", markup=False)
    return 0


def _show(parser: _Parser, arguments: Sequence[str]) -> int:
    parser.description = "Show one run: its end table, its files, and its curves over the outer steps."
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder, as outputs/DATE/RUN")
    folder = parser.parse_args(arguments).run
    from metarun.report import evaluations
    from metarun.report.console import end_table
    from metarun.report.curves import curves
    from metarun.report.listing import file_table, unfinished_table
    from metarun.report.runs import find_runs, read_run

    run = read_run(folder)
    if run is None:
        inside = [str(found.folder) for found in find_runs([folder])]
        hint = f"; it has runs in it: metarun list {folder}" if inside else ""
        raise ConfigError(f"{folder} is not the folder of a run{hint}")
    screen = _wide()
    screen.print(end_table(dict(run.results), folder, []) if run.state == "finished" else unfinished_table(run))
    screen.print(f"\nin {folder}/", markup=False)
    screen.print(file_table(run))
    if found := run.evaluations():
        screen.print()
        screen.print(evaluations.table(found))
    for drawing in curves(run, min(screen.width, 100), screen.is_terminal and not screen.no_color):
        screen.print()
        print(drawing)
    return 0


def _resume(parser: _Parser, arguments: Sequence[str]) -> int:
    parser.description = "Go on with an interrupted run from its last checkpoint."
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder, as outputs/DATE/RUN")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="of device, threads, run.processes: what is different now"
    )
    asked = parser.parse_args(arguments)
    with machine.lasting():
        from metarun.resume import resume

    return resume(asked.run, asked.overrides)


def _rerun(parser: _Parser, arguments: Sequence[str]) -> int:
    parser.description = "Run again what a run ran, with the settings it had, in a folder of its own."
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder, as outputs/DATE/RUN")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings to change, as seed=1")
    asked = parser.parse_args(arguments)
    import shlex

    from metarun.cli import CONF, command
    from metarun.rerun import rerun_arguments

    typed, notes = rerun_arguments(asked.run, asked.overrides, CONF)
    screen = _wide()
    screen.print(f"metarun {shlex.join(typed)}", markup=False, soft_wrap=True)
    for note in notes or ["the code and its packages are as they were"]:
        screen.print(note, markup=False)
    return command(typed)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _pairs(text: str) -> dict[str, str]:
    pairs = dict(word.split("=", 1) for word in _words(text) if "=" in word)
    if not pairs or len(pairs) < len(_words(text)):
        raise ConfigError(f"--baseline {text} is not KEY=VALUE; for example --baseline algo=protonet")
    return pairs


def _wide() -> Console:
    """Standard output; wide enough for a line a run where it is not a terminal."""
    from rich.console import Console

    screen = Console(highlight=False)
    told = screen.is_terminal or "COLUMNS" in os.environ
    return screen if told else Console(highlight=False, width=UNTOLD)
