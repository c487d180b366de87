"""`metarun --help` and `metarun help NAME`, read off the YAML files and the classes' own words; nothing is imported."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from metarun.core.errors import ConfigError, suggest
from metarun.core.screen import Screen
from metarun.settings.conf import CONF, list_config_dirs
from metarun.settings.explain import Choice, describe_choice, find_title, list_choices, read_comments

REQUIREMENTS = "Python 3.11 to 3.13, torch 2.11 to 2.15, Linux and macOS"

COMMANDS = (
    ("metarun GROUP=CHOICE KEY=VALUE ...", "one run; with -m and commas, a sweep"),
    ("metarun list, metarun show RUN", "what ran; one run with its curves"),
    ("metarun resume RUN, metarun rerun RUN", "go on; the same once more"),
    ("metarun compare PATH ...", "finished runs, task by task"),
    ("metarun eval RUN KEY=VALUE ...", "test it on other data, ways and shots"),
    ("metarun predict RUN --support ...", "label images of classes never seen"),
    ("metarun export RUN, metarun replay RUN", "its network; one of its steps again"),
    ("metarun data [prepare|show NAME]", "data sets: list, fetch, look at"),
    ("metarun help NAME", "a group, a choice or a setting"),
    ("metarun --cfg job, --config-dir DIR", "all settings; YAML files of your own"),
)

EXAMPLES = (
    ("metarun", "MAML on drawn characters, no download"),
    ("metarun algo=maml data=omniglot", "half an hour on two cores"),
    ("metarun data=folder data.path=photos", "images of your own"),
    ("metarun -m algo=maml,boil seed=0,1,2", "six runs, then their comparison"),
    ("metarun algo=boil +debug=fast", "a few steps, to see that it works"),
    ("metarun help boil", "a method, its settings, its paper"),
)

RUN = "RUN is a folder, an id of `metarun list`, the end of a name, or last."

COMPLETION = 'completion in bash: eval "$(metarun -sc install=bash)"; zsh and fish likewise'

GROUPS = ("data", "backbone", "algo", "optim", "optim/schedule", "run", "logger", "search", "hydra/launcher")
"""Groups in the order of the help; +groups, of which a run may have none, come after them."""

PLUS = ("experiment", "debug")
"""Groups that are typed with a +."""

LINE = 80
"""Columns of the help."""


def show_help(conf: Path, arguments: Sequence[str]) -> None:
    """Print usage, a line for each group, and examples: 40 lines of 80 columns."""
    screen = Screen()
    screen.say("metarun: meta-train, validate and test few-shot learners", "bold")
    screen.say(f"{REQUIREMENTS}\n")
    _print_pairs(COMMANDS, screen)
    screen.say(f"\n{RUN}\n")
    groups = list_choices([conf, *list_config_dirs(arguments)])
    for group in (*GROUPS, *PLUS):
        if names := list(groups.get(group, {})):
            screen.print(
                Text.assemble((head := _head(group), "bold"), _shorten(names, LINE - len(head))), soft_wrap=True
            )
    screen.say("")
    _print_pairs(EXAMPLES, screen)
    screen.say(f"\n{COMPLETION}")


def run_help(parser: argparse.ArgumentParser, arguments: Sequence[str], screen: Screen) -> int:
    """Run `metarun help NAME` and return the exit code. Raises: ConfigError for a name that nothing has."""
    parser.description = "Tell what a group, a choice of one or a setting is: metarun help algo, boil, algo.inner_lr."
    parser.add_argument("name", nargs="?", metavar="NAME", help="without one: as metarun --help")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="a folder of your own YAML files")
    asked = parser.parse_args(arguments)
    if asked.name is None:
        show_help(CONF, [])
        return 0
    folders = [CONF, *([asked.config_dir] if asked.config_dir else [])]
    groups = list_choices(folders)
    name = asked.name.strip("+=").removeprefix("+")
    if "=" in name and "/" not in name.partition("=")[2]:  # algo=boil
        group, _, name = name.partition("=")
        groups = {group: groups[group]} if group in groups else groups
    chosen = [(group, files[name]) for group, files in groups.items() if name in files]
    if name in groups:
        _show_group(name, groups, screen)
    elif chosen:
        for group, file in chosen:
            _show_choice(describe_choice(group, file), screen)
    elif not _show_setting(name, groups, screen):
        known = [*groups, *(one for files in groups.values() for one in files), *_list_keys(groups)]
        raise ConfigError(f"nothing is called {name}{suggest(name, known)}; metarun --help lists the groups")
    return 0


def _show_group(group: str, groups: Mapping[str, Mapping[str, Path]], screen: Screen) -> None:
    table = _make_table()
    for name, file in groups[group].items():
        table.add_row(f"  {name}", Text(find_title(file)))
    screen.print(Text(_head(group).strip(), "bold"))
    screen.print(table)
    for inner in groups:
        if inner.startswith(f"{group}/"):
            _show_group(inner, groups, screen)


def _show_choice(choice: Choice, screen: Screen) -> None:
    screen.print(Text.assemble((f"{_head(choice.group).strip()}{choice.name}", "bold"), f"  {choice.title}"))
    if choice.docstring:
        screen.print()
        screen.print(Text(choice.docstring))
    if choice.settings:
        screen.print()
        table = _make_table()
        for one in choice.settings:
            table.add_row(f"  {one.key}={one.default}", Text("; ".join(filter(None, [one.range, one.comment]))))
        screen.print(table)
    screen.print()


def _show_setting(name: str, groups: Mapping[str, Mapping[str, Path]], screen: Screen) -> bool:
    """Show every setting that is called so, whole or by its last part; return whether there is one."""
    rows: dict[tuple[str, str, str, str], dict[str, list[str]]] = {}
    root = CONF / "config.yaml"
    if name in (comments := read_comments(root)):
        screen.print(Text.assemble((name, "bold"), f"  {comments[name]}"))
        return True
    for group in GROUPS:  # not of experiments, which have settings of the others
        for file in groups.get(group, {}).values():
            for one in describe_choice(group, file).settings:
                if one.key == name or one.key.endswith(f".{name}"):
                    words = rows.setdefault((one.key, one.range, one.comment, one.meaning), {})
                    words.setdefault(one.default, []).append(f"{_head(group).strip()}{file.stem}")
    for (key, range_, comment, meaning), defaults in rows.items():
        screen.print(Text.assemble((key, "bold"), f"  {range_}"))
        for text in dict.fromkeys(filter(None, (meaning, comment))):
            screen.print(Text(f"  {text}"))
        for value, where in defaults.items():
            screen.print(Text(f"  {value} in {', '.join(where)}", "dim"))
    return bool(rows)


def _list_keys(groups: Mapping[str, Mapping[str, Path]]) -> list[str]:
    files = [(group, file) for group in GROUPS for file in groups.get(group, {}).values()]
    return list(dict.fromkeys(one.key for group, file in files for one in describe_choice(group, file).settings))


def _head(group: str) -> str:
    return f"{'+' if group.partition('/')[0] in PLUS else ''}{group}=  "


def _shorten(names: Sequence[str], width: int) -> str:
    """Join as many names as a line holds, and say how many there are besides."""
    for count in range(len(names), 0, -1):
        more = [f"and {len(names) - count} more"] if count < len(names) else []
        if len(text := ", ".join([*names[:count], *more])) <= width:
            break
    return text


def _print_pairs(pairs: Sequence[tuple[str, str]], screen: Screen) -> None:
    for line, what in pairs:
        screen.say(f"  {line:<38} {what}")


def _make_table() -> Table:
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", min_width=16, no_wrap=True)
    table.add_column(overflow="fold")
    return table
