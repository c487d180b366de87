"""`metarun eval`: trained runs tested on other sources, ways, shots and queries, without training."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from metarun.app.commands.files import write_and_say
from metarun.app.commands.screen import add_run, add_trust, announce
from metarun.app.messages import show_messages
from metarun.core import tuning
from metarun.core.command import quote
from metarun.core.errors import ConfigError
from metarun.core.run_folder import RunFolder
from metarun.core.screen import Screen
from metarun.core.words import describe_state
from metarun.report import formats
from metarun.report.compare import compare
from metarun.report.mistakes import make_hard_table
from metarun.report.retests import draw_over_shots, format_csv, format_markdown, make_table, summarise
from metarun.report.runs import find_runs, open_run, read_run
from metarun.report.tables import make_tables
from metarun.report.tested import read_tests

if TYPE_CHECKING:
    from metarun.app.jobs.reopened import Trained
    from metarun.app.jobs.tested_weights import Checkpoint

Draw = Callable[["Trained", Mapping[str, Any], str], None]


def run_eval(parser: argparse.ArgumentParser, arguments: Sequence[str], screen: Screen) -> int:
    """Run `metarun eval PATH ...` and return the exit code. Raises: ConfigError for wrong input."""
    parser.description = (
        "Test a trained run, or every run of a sweep, on other sources, ways, shots and query counts, or with another "
        "rate or head for the same weights, without training."
    )
    add_run(parser)
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE,VALUE",
        help="data=cub,omniglot data.k_shot=1,5 run.test_tasks=600 algo=anil algo.inner_lr=0.1",
    )  # fmt: skip
    parser.add_argument(
        "--split", choices=("val", "test"), default="test", help="the tasks to test on: val are those of validation"
    )
    parser.add_argument(
        "--choose", action="store_true",
        help="of several values of algo.KEY, choose on validation tasks, and test the best alone",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", choices=("best", "last", "ensemble"), default="best",
        help="the weights: best by validation, the last, or all that run.ensemble kept, together",
    )  # fmt: skip
    parser.add_argument("--again", action="store_true", help="repeat tests that were made before")
    parser.add_argument(
        "--pictures",
        action="store_true",
        help="draw the first test tasks with the errors marked, and the hardest classes",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table as csv too")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as markdown too")
    parser.add_argument("--wandb", action="store_true", help="add the scores to the run in W&B that was tested")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="a folder of your own YAML files")
    add_trust(parser)
    asked = parser.parse_args(arguments)
    if asked.choose and asked.split == "val":
        raise ConfigError("--choose chooses on validation tasks and tests the best: leave out --split val")
    folders, others = _find_folders(asked.run)
    own = [str(asked.config_dir.absolute())] if asked.config_dir else []
    tested = Asked(asked.overrides, asked.again, asked.trust, own, asked.split, asked.choose, asked.checkpoint)

    if len(folders) == 1:
        announce("testing", folders[0], screen)
    else:
        screen.say(f"testing {len(folders)} runs: {asked.run}/")
    made = []
    name = ""

    def done(one: Mapping[str, Any]) -> None:
        made.append(one)
        screen.print(Text(f"{name}{summarise(one)}"))

    def draw(run: Trained, values: Mapping[str, Any], mode: str) -> None:
        if asked.pictures:
            from metarun.app.jobs.mistakes import draw_mistakes  # imports torch

            hardest, files = draw_mistakes(run, values, mode)
            screen.print(make_hard_table(hardest))
            screen.say(f"pictures: {'  '.join(map(str, files))}")

    found: list[dict[str, Any]] = []
    of_folder: dict[Path, list[dict[str, Any]]] = {}
    refused: list[str] = []
    try:
        with show_messages(screen):
            for number, folder in enumerate(folders, 1):
                name = f"{number} of {len(folders)}: {folder.name}: " if len(folders) > 1 else ""
                try:
                    tests, impossible = evaluate_run(folder, tested, done, draw)
                except ConfigError as error:
                    if len(folders) == 1:
                        raise
                    tests, impossible = [], [str(error)]
                found += tests
                of_folder[folder] = tests
                refused += [f"{name}{words}" for words in impossible]
    except KeyboardInterrupt:
        screen.print("stopped; what was tested is kept, and the same command goes on")
        raise
    if not found:
        raise ConfigError("\n".join(refused))
    screen.print()
    pictures = {}
    if len(folders) > 1:
        markdown = _show_compared(folders, found, screen)
    else:
        screen.print(make_table(found))
        markdown = format_markdown(found)
        if picture := draw_over_shots(found):
            kind = "-".join(dict.fromkeys(one["data"] for one in found))
            pictures[RunFolder(folders[0]).evaluations / f"shots-{kind}.png"] = picture
    for path, content in {asked.csv: format_csv(found).encode(), asked.markdown: markdown.encode(), **pictures}.items():
        if path:
            write_and_say(path, content, screen)
    before = sum(not any(one is other for other in made) for one in found)
    again = f"; {before} of {len(found)} made before, --again repeats them" if before else ""
    where = f"{RunFolder(folders[0]).evaluations}/" if len(folders) == 1 else "evals/ of each run"
    screen.print(Text(f"kept in {where}{again}"))
    if len(folders) > 1:
        screen.say(f"again, with figures: metarun compare {quote(asked.run)} --html FILE")
    for line in others:
        screen.say(line)
    if asked.wandb:
        for folder, tests in of_folder.items():
            _tell_wandb(folder, tests, screen)
    if refused:
        raise ConfigError("\n".join(refused))
    return 0


def _find_folders(path: Path) -> tuple[list[Path], list[str]]:
    """Find the finished runs in `path`, a run's folder or a sweep's, and what to say of its other runs."""
    if RunFolder(path).has_settings() or not path.is_dir():
        return [path], []
    runs = [run for run in find_runs([path]) if run.state != "unstarted"]
    finished = [run.folder for run in runs if run.state == "finished"]
    if not finished:
        return [path], []  # which is told as of a run
    return finished, [
        f"{run.folder} {describe_state(run.state)}: not tested" for run in runs if run.state != "finished"
    ]


def _show_compared(folders: Sequence[Path], found: Sequence[Mapping[str, Any]], screen: Screen) -> str:
    """Show the tests of several runs in a table for each kind of test; return these as Markdown."""
    fields = ("episode_sha256", "bn", "data")
    asked = {tuple(one[field] for field in fields) for one in found}
    runs = [run for folder in folders if (run := read_run(folder))]
    same = [
        test
        for run in runs
        for test in (run, *read_tests(run))
        if tuple(test.results.get(field) for field in fields) in asked
    ]
    comparisons, notes = compare(same, None, ["seed"], None, None)
    for part in [*make_tables(comparisons, screen.width), *notes]:
        screen.print(part)
    return formats.format_markdown(comparisons)


def _tell_wandb(folder: Path, found: Sequence[Mapping[str, Any]], screen: Screen) -> None:
    """Add the tests of a run to its run in W&B. Raises: ConfigError if it has none."""
    from metarun.run.tracking.wandb_environment import choose_project
    from metarun.run.tracking.wandb_kept import tell_tests

    run = open_run(folder)
    id = run.results.get("wandb_id")
    if not id:
        raise ConfigError(f"{folder} has no run in W&B: it was logged with logger={run.settings.get('logger')}")
    project, entity = run.settings.get("logger.project"), run.settings.get("logger.entity")
    options = {"project": choose_project(project), "entity": entity}
    screen.say(tell_tests(folder, str(id), run.settings.get("logger.mode", "auto"), options, found))


@dataclass(frozen=True)
class Asked:
    """Which tests of a run are asked for.

    Attributes:
        typed: overrides; several values of a key make a test each.
        again: repeat tests that were made before.
        trust: whether the run's settings may name code that does not come with metarun.
        own: folders of YAML files of one's own.
        split: `test`, or `val` for validation tasks.
        choose: test only those values of algo.KEY that are the best on validation tasks.
        checkpoint: which weights are tested.
    """

    typed: Sequence[str] = ()
    again: bool = False
    trust: bool = False
    own: Sequence[str] = ()
    split: str = "test"
    choose: bool = False
    checkpoint: Checkpoint = "best"


def evaluate_run(
    folder: Path, asked: Asked, done: Callable[[Mapping[str, Any]], None], draw: Draw | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Test the run in `folder`; return the results, each kept in a file there, and why other tests were impossible.

    Args:
        done: is told of each test that is made now.
        draw: draws pictures of a test, given the run, the test's values and its BatchNorm mode.
    Raises: ConfigError if there is no finished run, or no test could be made.
    """
    with tuning.frozen_imports():
        from metarun.app.jobs.chosen import choose_on_validation, on_validation_tasks
        from metarun.app.jobs.reopened import open_trained
        from metarun.app.jobs.retest_settings import list_combinations
        from metarun.app.jobs.retests import run_tests
        from metarun.run.interrupt import stop_requests
    found, refused = list[dict[str, Any]](), list[str]()
    tests, modes, machine = list_combinations(asked.typed, asked.own)
    opened = open_trained(folder, tests[0], machine, asked.trust, asked.own, asked.checkpoint)
    with stop_requests() as stop, opened as run:
        run = on_validation_tasks(run) if asked.split == "val" else run
        chosen: Iterable[tuple[Mapping[str, Any], Sequence[str]]] = zip(tests, repeat(modes))
        if asked.choose:
            chosen = choose_on_validation(run, tests, modes, asked.again, stop, done)
        for values, wanted in chosen:
            try:
                for one in run_tests(run, values, wanted, asked.again, stop, done):
                    found.append(one)  # one by one: a later mode may be refused
                    if draw:
                        draw(run, values, one["bn"])
            except ConfigError as error:
                words = " ".join(f"{key}={value}" for key, value in values.items())
                refused.append(f"{words}: {error}" if len(tests) > 1 else str(error))
    if not found:
        raise ConfigError("\n".join(refused))
    return found, refused
