"""Which tests run which lines of the package, and from that which tests are asked about an edit."""

from __future__ import annotations

import ast
import difflib
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

NAME = "MUTATE_TEST"
"""As in whose.py, which the programs import that tests start, and which therefore is small."""


class Tracing:
    """A pytest plugin that notes which tests run each line of the package, themselves or in programs that they start.

    What a fixture runs that several tests share is run by all of them.

    Args:
        folder: where the notes of each process go.
        out: where the outcome goes, as `read_map` takes it.
    """

    def __init__(self, folder: Path, package: str, out: Path) -> None:
        import coverage

        self.source, self.out, self.data = Path.cwd() / package, out, folder / "coverage"
        common = f"[run]\nsource = {self.source}\ndata_file = {self.data}\nparallel = true\n"
        own, programs = folder / "own", folder / "programs"
        own.write_text(common)
        plugin = f"plugins = mutations.whose\n[mutations.whose]\nsource = {self.source}{os.sep}\n"
        programs.write_text(f"{common}patch = _exit\n{plugin}")
        path = os.pathsep.join([os.environ["PYTHONPATH"], str(Path(__file__).parents[1])])
        os.environ |= {"PYTHONPATH": path, "COVERAGE_PROCESS_START": str(programs), NAME: ""}
        self.coverage = coverage.Coverage(config_file=str(own), messages=False)
        self.coverage.start()
        self.seconds: dict[str, float] = defaultdict(float)
        self.failed: set[str] = set()
        self.users: dict[str, set[str]] = defaultdict(set)  # of a fixture
        self.narrow: set[str] = set()  # fixtures made anew where tests of other files come between

    def switch(self, name: str) -> str:
        """What follows is run by the test or fixture `name`; returns by whom before."""
        before = os.environ[NAME]
        os.environ[NAME] = name
        self.coverage.switch_context(name)
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
        self.coverage.stop()
        self.coverage.save()
        passed = [name for name in self.seconds if "::" in name and name not in self.failed]  # in the order they ran
        tests = {name: number for number, name in enumerate(passed)}
        members = {name: {number} for name, number in tests.items()}
        members |= {name: {tests[user] for user in users if user in tests} for name, users in self.users.items()}
        runs: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))  # file, line, tests
        for file in self.data.parent.glob(f"{self.data.name}.*"):
            for name, line, context in _noted(file):
                runs[str(Path(name).relative_to(self.source.parent))][line] |= members.get(context, set())
        together = {number for fixture in self.narrow for number in members[fixture]}
        write_map(self.out, {name: round(max(self.seconds[name], 0), 3) for name in tests}, runs, together)


def _noted(file: Path) -> Iterator[tuple[str, int, str]]:
    """File, line and context of what one process ran; nothing of one that was killed while it wrote."""
    from coverage import CoverageData, CoverageException

    data = CoverageData(str(file))
    with suppress(CoverageException):
        data.read()
        for name in data.measured_files():
            for line, contexts in data.contexts_by_lineno(name).items():
                yield from ((name, line, context) for context in contexts)


def write_map(
    out: Path, seconds: dict[str, float], runs: dict[str, dict[int, set[int]]], together: Iterable[int] = ()
) -> None:
    """Lines that the same tests run are written together, which makes the file a hundredth as large."""
    lines: dict[str, list[Any]] = {}
    for name, tests_of in runs.items():
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for line, tests in sorted(tests_of.items()):
            alike[tuple(sorted(tests))].append(line)
        lines[name] = [[same, tests] for tests, same in alike.items() if tests]
    out.parent.mkdir(parents=True, exist_ok=True)
    found = {"seconds": seconds, "together": sorted(together), "lines": lines}
    out.write_text(json.dumps(found, separators=(",", ":")))


class Map(NamedTuple):
    """The seconds of each test, in the order in which those of a file ran, the tests that run each line of each file,
    and those that share with others of their file what takes long to make."""

    seconds: dict[str, float]
    tests: dict[str, dict[int, set[str]]]
    together: set[str]


def read_map(folder: Path) -> Map:
    """What was written in `folder`, one file for each file of tests."""
    found = Map({}, defaultdict(lambda: defaultdict(set)), set())
    for file in sorted(folder.glob("*.json")):
        part = json.loads(file.read_text())
        names = list(part["seconds"])
        found.seconds.update(part["seconds"])
        found.together.update(names[number] for number in part["together"])
        for name, groups in part["lines"].items():
            for lines, tests in groups:
                for line in lines:
                    found.tests[name][line].update(names[number] for number in tests)
    return found


def about(known: Map, file: str, before: str, after: str, budget: float) -> tuple[list[str], int]:
    """The tests that are asked about an edit of `file`, in order, and how many that run the edited statement are not.

    First those that run it, the fastest first, for at most `budget` seconds. Since what is kept from one test to the
    next hides who needs it, then for a third of that others that run its function or, failing those, the file. Of a
    file that no test runs, any.
    """
    lines = known.tests.get(file, {}) if file.endswith(".py") else {}
    circles = [set().union(*(lines.get(n, ()) for n in circle)) for circle in widening(before, after)] if lines else []
    near, *far = [tests for tests in circles if tests] or [set(known.seconds)]
    wider = next((tests - near for tests in far if tests - near), set[str]())
    asked = _fastest(known, near, budget)
    return [*asked, *_fastest(known, wider, budget / 3)], len(near) - len(asked)


def _fastest(known: Map, tests: Iterable[str], budget: float) -> list[str]:
    """As many of the tests as take `budget` seconds, the fastest first; each function is there with one of its
    parameters before one is with a second. Those of a file that share something stay together."""
    functions: dict[str, list[str]] = defaultdict(list)
    for test in sorted(tests, key=lambda name: (known.seconds[name], name)):
        functions[test.partition("[")[0]].append(test)
    ranked = sorted((rank, known.seconds[t], t) for same in functions.values() for rank, t in enumerate(same))
    asked: list[str] = []
    spent = 0.0
    for _, seconds, test in ranked:
        if not asked or spent + seconds <= budget:
            asked.append(test)
            spent += seconds
    whole: dict[str, float] = defaultdict(float)
    for test in known.together.intersection(asked):
        whole[test.partition("::")[0]] += known.seconds[test]
    order = {test: number for number, test in enumerate(known.seconds)}

    def place(test: str) -> tuple[float, int]:
        first = whole[test.partition("::")[0]] if test in known.together else known.seconds[test]
        return first, order[test]

    return sorted(asked, key=place)


def widening(before: str, after: str) -> list[set[int]]:
    """Lines of `before` that an edit may make a difference to: its statements, their functions, all functions.

    What runs once, when a module is imported, is left to those who run the functions.
    """
    old = before.splitlines()
    changed: set[int] = set()
    for what, first, last, _, _ in difflib.SequenceMatcher(None, old, after.splitlines(), False).get_opcodes():
        if what != "equal":
            changed |= set(range(first + 1, last + 1)) or {first, first + 1}
    bodies, functions, own = set[int](), set[int](), set[int]()
    tree = ast.parse(before)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = set(range(node.body[0].lineno, (node.end_lineno or 0) + 1))
            bodies |= body
            if changed & (body | set(range(node.lineno, node.body[0].lineno))):
                functions |= body
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and node.lineno in bodies:
            inner: Sequence[ast.stmt] = getattr(node, "body", [])
            last = inner[0].lineno - 1 if inner else node.end_lineno or node.lineno
            span = set(range(node.lineno, max(last, node.lineno) + 1))
            own |= span if span & changed else set()
    return [own & bodies, functions, bodies]
