"""Which tests run the statement that a mutation changes, and from that which are asked about it."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple


class Map(NamedTuple):
    """The seconds of each test, in the order in which those of a file ran; the tests that run the statement of each
    mutation; and those that share with others of their file what takes long to make."""

    seconds: dict[str, float]
    tests: dict[str, set[str]]
    together: set[str]


def gather_notes(folder: Path) -> Map:
    """Read what notes.py left in `folder`: a .txt file for each mutation, a .json file for each process of tests."""
    known, users = Map({}, {}, set()), dict[str, set[str]]()
    for file in sorted(folder.glob("*.json")):
        part = json.loads(file.read_text())
        known.seconds.update(part["seconds"])
        for name, tests in part["users"].items():
            users.setdefault(name, set()).update(tests)
        known.together.update(test for name in part["narrow"] for test in part["users"].get(name, ()))
    known.together.intersection_update(known.seconds)
    for file in folder.glob("*.txt"):
        names = set(file.read_text().splitlines())
        tests = {test for name in names for test in users.get(name, {name})}
        known.tests[file.stem] = tests & known.seconds.keys()
    return known


def write_map(out: Path, known: Map) -> None:
    """Write the map, tests by their numbers."""
    numbers = {test: number for number, test in enumerate(known.seconds)}
    tests = {name: sorted(numbers[test] for test in those) for name, those in sorted(known.tests.items())}
    together = sorted(numbers[test] for test in known.together)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"seconds": known.seconds, "tests": tests, "together": together}))


def read_map(file: Path) -> Map:
    """Read what write_map wrote; an empty map if nothing did."""
    if not file.exists():
        return Map({}, {}, set())
    found = json.loads(file.read_text())
    names = list(found["seconds"])
    tests = {name: {names[number] for number in numbers} for name, numbers in found["tests"].items()}
    return Map(found["seconds"], tests, {names[number] for number in found["together"]})


def add_tests(known: Map, more: Map) -> Map:
    """Add what is known of more tests."""
    names = {*known.tests, *more.tests}
    tests = {name: known.tests.get(name, set()) | more.tests.get(name, set()) for name in names}
    return Map({**known.seconds, **more.seconds}, tests, known.together | more.together)


def about(known: Map, name: str, beside: Sequence[str], budget: float) -> tuple[list[str], int]:
    """The tests that are asked about the mutation `name`, in order, and how many that run its statement are not.

    First those that run it, the fastest first, for at most `budget` seconds; without a limit these alone. Else, since
    what is kept from one test to the next hides who needs it, for a third of that those of the same files of tests and,
    failing those, those that run the statements of the mutations `beside` it, in the same file. Of what no test runs,
    any.
    """
    own = known.tests.get(name, set())
    files = {test.partition("::")[0] for test in own}
    same = {test for test in known.seconds if test.partition("::")[0] in files}
    near, *far = [tests for tests in (own, same, set().union(*(known.tests.get(n, ()) for n in beside))) if tests] or [
        set(known.seconds)
    ]
    wider = next((tests - near for tests in far if tests - near), set[str]())
    asked = _fastest(known, near, budget)
    more = _fastest(known, wider, budget / 3) if math.isfinite(budget) else []
    return [*asked, *more], len(near) - len(asked)


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
