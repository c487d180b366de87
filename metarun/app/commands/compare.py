"""`metarun compare`: finished runs, task by task, in one table for each set that may be compared."""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from metarun.app.commands.files import write
from metarun.app.commands.screen import FindRun
from metarun.core.errors import ConfigError
from metarun.core.screen import Screen
from metarun.report import formats
from metarun.report.compare import Comparison, compare
from metarun.report.groups import select_where
from metarun.report.planned import Plan
from metarun.report.runs import find_runs
from metarun.report.tables import make_tables
from metarun.report.tested import add_tests


def run_compare(parser: argparse.ArgumentParser, arguments: Sequence[str], screen: Screen) -> int:
    """Run `metarun compare PATH ...` and return the exit code. Raises: ConfigError for wrong input."""
    parser.description = "Compare finished runs, task by task, in one table for each set that may be compared."
    parser.add_argument(
        "paths", nargs="+", action=FindRun, metavar="PATH",
        help="folders with runs in or under them, or the ends of their names; `last`: the last sweep or run",
    )  # fmt: skip
    parser.add_argument(
        "--where", metavar="KEY=VALUE,...", help="only runs, and tests by metarun eval, with k_shot=5,bn=support ..."
    )
    parser.add_argument("--by", metavar="KEYS", help="algo,data.k_shot ...; default: the settings that differ")
    parser.add_argument("--over", metavar="KEYS", default="seed", help="keys to average over; default: seed")
    parser.add_argument("--metric", help="a score of results.json; default: accuracy, return, log_likelihood or mse")
    way = parser.add_mutually_exclusive_group()
    for word in ("higher", "lower"):
        way.add_argument(
            f"--{word}", dest="better", action="store_const", const=word, help=f"{word} values of the metric are better"
        )
    parser.add_argument("--baseline", metavar="KEY=VALUE,...", help="hold the others against it; default: the best")
    parser.add_argument(
        "--pair", nargs=2, action="append", default=[], metavar=("A", "B"),
        help="a planned comparison of two groups, as KEY=VALUE,...; corrected over the pairs alone; may be repeated",
    )  # fmt: skip
    for flag, what in (
        ("--equal-within", "ask whether the groups of a pair are equal within D"),
        ("--seeds-for", "count the seeds that would show a difference of D"),
    ):
        parser.add_argument(flag, type=float, metavar="D", help=f"{what}, in the units of the table")
    for form in ("csv", "markdown", "latex"):
        parser.add_argument(f"--{form}", type=Path, metavar="FILE", help=f"write the tables as {form} too")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write tables and figures as one page")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw all figures; into a folder: a file each")
    asked = parser.parse_args(arguments)
    baseline = _read_pairs(asked.baseline, "--baseline") if asked.baseline is not None else None
    runs = find_runs(asked.paths)
    finished = [run for run in runs if run.state == "finished"]
    states = Counter(run.state for run in runs if run.state != "finished")
    others = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    damages = [run.damage for run in runs if run.damage]
    if not finished:
        where = " ".join(map(str, asked.paths))
        only = f", only {others}" if others else ""
        raise ConfigError("\n".join([f"no finished run is under {where}{only}", *damages]))
    tested, alone = add_tests(finished)
    if asked.where:
        tested = select_where(tested, _read_pairs(asked.where, "--where"))
    plan = None
    if asked.pair or asked.equal_within is not None or asked.seeds_for is not None:
        pairs = [(_read_pairs(one, "--pair"), _read_pairs(other, "--pair")) for one, other in asked.pair]
        plan = Plan(
            pairs,
            _check_positive("--equal-within", asked.equal_within),
            _check_positive("--seeds-for", asked.seeds_for),
        )
    by = _split_words(asked.by) if asked.by is not None else None
    comparisons, notes = compare(tested, by, _split_words(asked.over), asked.metric, baseline, asked.better, plan)
    if others:
        notes.append(f"runs that have not finished are left out: {others}")
    if alone:
        tests = f"{alone} test{'s' * (alone > 1)} by metarun eval"
        notes.append(f"{tests}, as no other run was tested, left out: metarun show RUN")
    notes += [*damages, *(problem for run in finished for problem in run.find_damages())]
    for table in make_tables(comparisons, screen.width):
        screen.print(table)
    for note in notes:
        screen.print(note)
    for path, written in (
        (asked.csv, formats.format_csv), (asked.markdown, formats.format_markdown), (asked.latex, formats.format_latex)
    ):  # fmt: skip
        if path:
            write(path, written(comparisons).encode())
    if asked.csv:
        write(asked.csv.with_stem(f"{asked.csv.stem}-seeds"), formats.format_seed_csv(comparisons).encode())
    if asked.csv and plan:
        write(asked.csv.with_stem(f"{asked.csv.stem}-pairs"), formats.format_pair_csv(comparisons).encode())
    if asked.html or asked.png:
        _draw(asked.html, asked.png, comparisons, notes, ["compare", *arguments])
    return 0


def _draw(
    html: Path | None, png: Path | None, comparisons: Sequence[Comparison], notes: Sequence[str], command: Sequence[str]
) -> None:
    """Draw the figures into a page or into PNG files. The drawing library takes a second to import."""
    from metarun.report.figures import charts
    from metarun.report.figures.gallery import join_views, make_gallery, name_views
    from metarun.report.figures.page import render_page

    found = make_gallery(comparisons)
    if html:
        write(html, render_page(comparisons, found, notes, command).encode())
    if png:
        views = name_views(found)
        if not views:
            raise ConfigError(f"there is nothing to draw for {png}: one group, and no metrics.jsonl with its curves")
        if png.is_dir():
            for name, view in views.items():
                write(png / f"{name}.png", charts.render_png(view))
        else:
            write(png, charts.render_png(join_views(comparisons, found)))


def _split_words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _read_pairs(text: str, flag: str) -> dict[str, str]:
    pairs = dict(word.split("=", 1) for word in _split_words(text) if "=" in word)
    if not pairs or len(pairs) < len(_split_words(text)):
        raise ConfigError(f"{flag} {text} is not KEY=VALUE; for example {flag} algo=protonet")
    return pairs


def _check_positive(flag: str, value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise ConfigError(f"{flag} {value:g} is not a number above 0")
    return value
