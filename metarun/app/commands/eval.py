"""`metarun eval`: a trained run tested on other sources, ways, shots and queries, without training."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from metarun.app.commands.files import write_and_say
from metarun.app.commands.screen import add_run, add_trust
from metarun.app.jobs.reopened import Done, open_trained
from metarun.app.jobs.retest_settings import list_combinations
from metarun.app.messages import show_messages
from metarun.core.errors import ConfigError
from metarun.core.run_folder import RunFolder
from metarun.core.screen import Screen
from metarun.report.retests import draw_over_shots, format_csv, format_markdown, make_table, summarise
from metarun.run.interrupt import stop_requests


def run_eval(parser: argparse.ArgumentParser, arguments: Sequence[str], screen: Screen) -> int:
    """Run `metarun eval RUN ...` and return the exit code. Raises: ConfigError for wrong input."""
    parser.description = "Test a trained run on other sources, ways, shots and query counts, without training."
    add_run(parser)
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE,VALUE", help="data=cub,omniglot data.k_shot=1,5 run.test_tasks=600"
    )
    parser.add_argument("--again", action="store_true", help="repeat tests that were made before")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table as csv too")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as markdown too")
    add_trust(parser)
    asked = parser.parse_args(arguments)

    made = []

    def done(one: Mapping[str, Any]) -> None:
        made.append(one)
        screen.print(Text(summarise(one)))

    try:
        with show_messages(screen):
            found, refused = evaluate_run(asked.run, asked.overrides, asked.again, done, asked.trust)
    except KeyboardInterrupt:
        screen.print("stopped; what was tested is kept, and the same command goes on")
        raise
    screen.print()
    screen.print(make_table(found))
    files = {asked.csv: format_csv(found).encode(), asked.markdown: format_markdown(found).encode()}
    if picture := draw_over_shots(found):
        files[
            RunFolder(asked.run).evaluations / f"shots-{'-'.join(dict.fromkeys(one['data'] for one in found))}.png"
        ] = picture
    for path, content in files.items():
        if path:
            write_and_say(path, content, screen)
    before = len(found) - len(made)
    again = f"; {before} of {len(found)} made before, --again repeats them" if before else ""
    screen.print(Text(f"kept in {RunFolder(asked.run).evaluations}/{again}"))
    if refused:
        raise ConfigError("\n".join(refused))
    return 0


def evaluate_run(
    folder: Path, typed: Sequence[str], again: bool, done: Done, trust: bool = False
) -> tuple[list[dict[str, Any]], list[str]]:
    """Test the run in `folder`; return the results, each kept in a file there, and why other tests were impossible.

    Args:
        typed: overrides; several values of a key make a test each.
        again: repeat tests that were made before.
        done: is told of each test that is made now.
        trust: whether the run's settings may name code that does not come with metarun.
    Raises: ConfigError if there is no finished run, or no test could be made.
    """
    found: list[dict[str, Any]] = []
    refused: list[str] = []
    asked, modes, machine = list_combinations(typed)
    with stop_requests() as stop, open_trained(folder, asked[0], machine, trust) as run:
        for values in asked:
            try:
                for one in run.run_tests(values, modes, again, stop, done):
                    found.append(one)  # one by one: a later mode may be refused
            except ConfigError as error:
                words = " ".join(f"{key}={value}" for key, value in values.items())
                refused.append(f"{words}: {error}" if len(asked) > 1 else str(error))
    if not found:
        raise ConfigError("\n".join(refused))
    return found, refused
