"""A plugin of pytest for a copy of the tree in which each statement that a mutation changes says first that it runs.

A note is one call, in the test's process or in a program that it starts, of `note` in the module NOTING, which
`add_notes` writes into the copy's package. What is run while a module is imported is no test's.
"""

from __future__ import annotations

import ast
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

NAME, FOLDER = "MUTATE_TEST", "MUTATE_NOTES"
"""In the environment: the test or the fixture that runs, and the folder for what is noted."""

NOTING = "_noting"
CODE = f"""
import os

SEEN = set()


def note(name):
    folder, test = os.environ.get("{FOLDER}"), os.environ.get("{NAME}")
    if folder and test and (name, test) not in SEEN:
        SEEN.add((name, test))
        with open(os.path.join(folder, name + ".txt"), "a") as file:
            file.write(test + "\\n")
"""


def add_notes(tree: Path, package: str, edits: Iterable[tuple[str, str, str, str]]) -> list[str]:
    """Write the notes into the copy `tree`.

    Args:
        edits: id, file, and the file's text before and after, of each mutation.
    Returns: the ids that have no note, for their file is no Python or the place is no statement of its own.
    """
    (tree / package / f"{NOTING}.py").write_text(CODE)
    texts: dict[str, str] = {}
    wanted: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    without = []
    for name, file, before, after in edits:
        line = _find_statement(before, after) if file.endswith(".py") else None
        if line is None:
            without.append(name)
        else:
            texts[file] = before
            wanted[file][line].append(name)
    for file, places in wanted.items():
        lines = texts[file].splitlines()
        for line, names in sorted(places.items(), reverse=True):
            indent = lines[line - 1][: len(lines[line - 1]) - len(lines[line - 1].lstrip())]
            module = f"__import__({f'{package}.{NOTING}'!r}, fromlist=['note'])"
            lines[line - 1 : line - 1] = [f"{indent}{module}.note({name!r})" for name in names]
        (tree / file).write_text("\n".join(lines) + "\n")
    return without


def _find_statement(before: str, after: str) -> int | None:
    """Find the line of the innermost statement that an edit changes; None if nothing can stand in front of it.

    Of a default it is the first statement of its function, since the default itself is computed by an import.
    """
    place = next((k for k, (old, new) in enumerate(zip(before, after, strict=False)) if old != new), len(after))
    while place < len(before) and before[place].isspace():
        place += 1
    changed = before.count("\n", 0, place) + 1
    lines, found = before.splitlines(), []
    for node in ast.walk(ast.parse(before)):
        for field in ("body", "orelse", "finalbody"):
            statements = getattr(node, field, None)
            if not isinstance(statements, list):
                continue  # of a lambda, or of `x if y else z`
            for statement in statements:
                decorators = [each.lineno for each in getattr(statement, "decorator_list", [])]
                first = min(statement.lineno, *decorators) if decorators else statement.lineno
                alone = not lines[first - 1][: statement.col_offset].strip() and not lines[
                    first - 1
                ].lstrip().startswith("elif ")
                if alone and first <= changed <= (statement.end_lineno or first):
                    found.append((first, -(statement.end_lineno or first)))
                    if (
                        isinstance(statement, ast.FunctionDef)
                        and statement.lineno <= changed < statement.body[0].lineno
                    ):
                        inside = next((one for one in statement.body if not _is_text(one)), statement)
                        found.append((inside.lineno, 0))
    if not found:
        return None
    line = max(found)[0]
    return None if lines[line - 1].startswith("from __future__") else line


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


class Noting:
    """Tells the notes whose they are. What a fixture runs that several tests share is run by all of them.

    Args:
        out: the file for what is known of the tests at the end.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.seconds: dict[str, float] = defaultdict(float)
        self.failed: set[str] = set()
        self.users: dict[str, set[str]] = defaultdict(set)  # of a fixture
        self.narrow: set[str] = set()  # fixtures made anew where tests of other files come between

    def switch(self, name: str) -> str:
        """What follows is run by the test or fixture `name`; returns by whom before."""
        before = os.environ.get(NAME, "")
        os.environ[NAME] = name
        return before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Function) -> Iterator[None]:
        numbers = item.callspec.indices if hasattr(item, "callspec") else {}
        for fixture in item.fixturenames:
            self.users[f"fixture {fixture} {numbers.get(fixture, 0)}"].add(item.nodeid)
        self.switch(item.nodeid)
        try:
            return (yield)
        finally:
            self.switch("")

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any], request: Any) -> Iterator[None]:
        if fixturedef.scope == "function":
            return (yield)
        name = f"fixture {fixturedef.argname} {request.param_index}"
        if fixturedef.scope != "session":
            self.narrow.add(name)
        before, started = self.switch(name), time.perf_counter()
        try:
            return (yield)
        finally:
            self.seconds[before] -= time.perf_counter() - started  # which are not the test's own
            self.switch(before)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.outcome != "passed":
            self.failed.add(report.nodeid)

    def pytest_unconfigure(self) -> None:
        passed = {n: round(max(s, 0), 3) for n, s in self.seconds.items() if "::" in n and n not in self.failed}
        users = {name: sorted(tests) for name, tests in self.users.items()}
        found = {"seconds": passed, "users": users, "narrow": sorted(self.narrow), "failed": sorted(self.failed)}
        self.out.write_text(json.dumps(found))


def pytest_configure(config: pytest.Config) -> None:
    """In each process that runs tests."""
    if folder := os.environ.get(FOLDER):
        number = getattr(config, "workerinput", {}).get("workerid", "alone")
        if number != "alone" or not config.getoption("numprocesses", None):
            config.pluginmanager.register(Noting(Path(folder) / f"{number}.json"))
