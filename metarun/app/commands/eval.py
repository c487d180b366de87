"""`metarun eval`: trained runs tested on other sources, ways, shots and queries, without training."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from metarun.app.commands.files import write_and_say
from metarun.app.commands.screen import add_run, add_trust, announce
from metarun.app.jobs.evaluated import Asked, evaluate_run
from metarun.app.messages import show_messages
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


def run_eval(parser: argparse.ArgumentParser, arguments: Sequence[str], screen: Screen) -> int:
    """Run `metarun eval PATH ...` and return the exit code. Raises: ConfigError for wrong input."""
    typed = _parse(parser, arguments)
    own = [str(typed.config_dir.absolute())] if typed.config_dir else []
    asked = Asked(typed.overrides, typed.again, typed.trust, own, typed.split, typed.choose, typed.checkpoint)
    folders, others = _find_folders(typed.run)
    if len(folders) == 1:
        announce("testing", folders[0], screen)
    else:
        screen.say(f"testing {len(folders)} runs: {typed.run}/")
    tested = _test(folders, asked, typed.pictures, screen)
    if not tested.found:
        raise ConfigError("\n".join(tested.refused))

    screen.print()
    markdown = _show(folders, tested.found, screen)
    files = {typed.csv: format_csv(tested.found).encode(), typed.markdown: markdown.encode()}
    if len(folders) == 1 and (picture := draw_over_shots(tested.found)):
        kind = "-".join(dict.fromkeys(one["data"] for one in tested.found))
        files[RunFolder(folders[0]).evaluations / f"shots-{kind}.png"] = picture
    for path, content in files.items():
        if path:
            write_and_say(path, content, screen)
    _say_where(folders, tested, screen)
    if len(folders) > 1:
        screen.say(f"again, with figures: metarun compare {quote(typed.run)} --html FILE")
    for line in others:
        screen.say(line)
    if typed.wandb:
        for folder, tests in tested.of_folder.items():
            _tell_wandb(folder, tests, screen)
    if tested.refused:
        raise ConfigError("\n".join(tested.refused))
    return 0


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Read what was typed after `metarun eval`. Raises: ConfigError for options that rule each other out."""
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
    typed = parser.parse_args(arguments)
    if typed.choose and typed.split == "val":
        raise ConfigError("--choose chooses on validation tasks and tests the best: leave out --split val")
    return typed


@dataclass(frozen=True)
class Tested:
    """What tests of some runs came to.

    Attributes:
        of_folder: the tests of each run.
        made: those that were made now, which no earlier call had kept, and those that chose on validation tasks.
        refused: why others were impossible.
    """

    of_folder: dict[Path, list[dict[str, Any]]] = field(default_factory=dict)
    made: list[Mapping[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def found(self) -> list[dict[str, Any]]:
        return [test for tests in self.of_folder.values() for test in tests]


def _test(folders: Sequence[Path], asked: Asked, pictures: bool, screen: Screen) -> Tested:
    """Test each run, and say what each test came to. Raises: ConfigError if the only run cannot be tested."""
    tested = Tested()
    name = ""

    def done(one: Mapping[str, Any]) -> None:
        tested.made.append(one)
        screen.print(Text(f"{name}{summarise(one)}"))

    def draw(run: Trained, values: Mapping[str, Any], mode: str) -> None:
        from metarun.app.jobs.mistakes import draw_mistakes  # imports torch

        hardest, files = draw_mistakes(run, values, mode)
        screen.print(make_hard_table(hardest))
        screen.say(f"pictures: {'  '.join(map(str, files))}")

    try:
        with show_messages(screen):
            for number, folder in enumerate(folders, 1):
                name = f"{number} of {len(folders)}: {folder.name}: " if len(folders) > 1 else ""
                try:
                    tests, impossible = evaluate_run(folder, asked, done, draw if pictures else None)
                except ConfigError as error:
                    if len(folders) == 1:
                        raise
                    tests, impossible = [], [str(error)]
                tested.of_folder[folder] = tests
                tested.refused.extend(f"{name}{words}" for words in impossible)
    except KeyboardInterrupt:
        screen.print("stopped; what was tested is kept, and the same command goes on")
        raise
    return tested


def _say_where(folders: Sequence[Path], tested: Tested, screen: Screen) -> None:
    """Say where the tests are kept, and how many of them an earlier call had made."""
    found = tested.found
    before = sum(not any(one is other for other in tested.made) for one in found)
    again = f"; {before} of {len(found)} made before, --again repeats them" if before else ""
    where = f"{RunFolder(folders[0]).evaluations}/" if len(folders) == 1 else "evals/ of each run"
    screen.print(Text(f"kept in {where}{again}"))


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


def _show(folders: Sequence[Path], found: Sequence[dict[str, Any]], screen: Screen) -> str:
    """Show the tests of a run in a table, those of several in one for each kind of test; return these as Markdown."""
    if len(folders) == 1:
        screen.print(make_table(found))
        return format_markdown(found)
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
