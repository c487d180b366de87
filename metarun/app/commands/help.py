"""`metarun --help`, read off the YAML files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from metarun.core.screen import Screen
from metarun.settings.conf import GROUPS

REQUIREMENTS = "Python 3.11 to 3.13, torch 2.11 to 2.15, Linux and macOS"

EXAMPLES = (
    ("metarun", "MAML on procedural glyphs: no download, about a minute"),
    ("metarun algo=maml data=omniglot", "the main job, about half an hour on 2 cores"),
    ("metarun algo=protonet data=omniglot data.n_way=20 data.k_shot=5", "another task"),
    ("metarun -m algo=maml,fomaml,protonet seed=0,1,2 logger=none", "nine runs, one after the other"),
    (
        "metarun -m algo=maml,protonet seed=0,1,2 hydra/launcher=joblib",
        "six runs, as many at a time as there are cores",
    ),
    (
        "metarun compare outputs/sweeps/NAME --baseline algo=maml",
        "the nine, means over seeds, paired over test tasks",
    ),
    ("metarun -m search=maml data=omniglot", "twenty runs with settings that Optuna proposes; the best of them"),
    ("metarun resume outputs/DATE/RUN", "go on after an interruption"),
)

SHOWN = (*GROUPS, "experiment", "tuned", "search", "hydra/launcher")
"""Folders of choices; those within one, as optim/schedule, come after it."""

HEADS = {
    "experiment": "+experiment=",
    "experiment/quick": "+experiment=quick/",
    "tuned": "settings that come by themselves with DATA-ALGO",
}


def show_help(conf: Path, arguments: Sequence[str]) -> None:
    """Print usage, every group's choices with their meaning, and example commands."""
    screen = Screen()
    folders = [conf, *_list_config_dirs(arguments)]
    screen.print("metarun: meta-train, validate and test few-shot learners")
    screen.print(f"{REQUIREMENTS}\n")
    screen.print(Text("metarun [GROUP=CHOICE ...] [KEY=VALUE ...]      one run; -m and comma-separated values sweep"))
    screen.print(Text("metarun resume RUN                             go on with an interrupted run"))
    screen.print(
        Text("metarun list [PATH] | show RUN                 what ran and how it ended; one run with its curves")
    )
    screen.print(Text("metarun compare PATH ...                       finished runs, task by task (compare --help)"))
    screen.print(Text("metarun eval RUN [data=NAME,NAME] [KEY=VALUE]  test it on other data, ways and shots"))
    screen.print(Text("metarun predict RUN --support FOLDER --query IMAGES   name images after some of each class"))
    screen.print(Text("metarun export RUN                             its network, for other programs"))
    screen.print(Text("metarun data [prepare|show NAME]               data sets at hand; fetch one; draw its tasks"))
    screen.print(Text("metarun --cfg job | --version | --config-dir DIR   settings; version; your own YAML files\n"))
    for group in _list_groups(folders):
        choices = {
            file.stem: file for folder in folders for file in sorted((folder / group).glob("*.yaml")) if file.is_file()
        }
        if choices:
            table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
            table.add_column(style="bold", min_width=16, no_wrap=True)
            table.add_column(overflow="fold")
            for name, file in choices.items():
                table.add_row(f"  {name}", Text(find_meaning(file)))
            screen.print(Text(HEADS.get(group, f"{group}="), style="bold"))
            screen.print(table)
    screen.print(Text("\nexamples", style="bold"))
    for line, what in EXAMPLES:
        screen.say(f"  {line}\n      {what}")


def _list_groups(folders: Sequence[Path]) -> Iterator[str]:
    for group in SHOWN:
        yield group
        inside = {path.parent.name for folder in folders for path in folder.glob(f"{group}/*/*.yaml")}
        yield from (f"{group}/{name}" for name in sorted(inside))


def find_meaning(file: Path) -> str:
    """Return the first comment of a YAML file that is not a directive to Hydra."""
    lines = (line[1:].strip() for line in file.read_text(errors="replace").splitlines() if line.startswith("#"))
    return next((line for line in lines if not line.startswith("@")), "")


def _list_config_dirs(arguments: Sequence[str]) -> list[Path]:
    found = []
    for flag, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if flag in ("--config-dir", "-cd"):
            found.append(Path(value))
        elif flag.startswith("--config-dir="):
            found.append(Path(flag.split("=", 1)[1]))
    return found
