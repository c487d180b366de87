"""scripts/mutate.py on a small package, and whether its lists fit the tree of today."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from mutate import ROOT, Mutation, choose, choose_survivors, edited, entry_of, read_lists
from mutations.draw import draw, write_drawn
from mutations.notes import add_notes
from mutations.pool import Outcome
from mutations.touched import Map, about, add_tests, read_map, write_map

SCRIPTS = ROOT / "scripts"
CODE = """LIMIT = 3


def double(x):
    return 2 * x


def triple(x):
    return 3 * x


def wait(x):
    while x > 5:
        pass
    return x
"""
TESTS = """import toy.numbers


def test_double():
    assert toy.numbers.double(1) == 2


def test_triple_is_called():
    assert toy.numbers.triple(1)


def test_wait():
    assert toy.numbers.wait(1) == 1
"""
HALVES = """import toy.halves


def test_half():
    assert toy.halves.half(2) == 2.5
"""
MAPPED = """
import subprocess
import sys

import pytest
from toy.numbers import double, triple, wait


def test_double():
    assert double(2) == 4


@pytest.fixture(scope="module")
def waited():
    return wait(1)


def test_one(waited):
    pass


def test_two(waited):
    pass


def test_program():
    subprocess.run([sys.executable, "-c", "from toy.numbers import triple; triple(1)"], check=True)
"""
ENTRIES = {  # each after what becomes of it: the edit, and the first to fail
    "seen": ("toy/numbers.py", "2 * x", "x * x", "tests/test_toy.py::test_double"),
    "survived": ("toy/numbers.py", "3 * x", "4 * x", None),
    "import": ("toy/numbers.py", "LIMIT = 3", "LIMIT = three", "tests/test_toy.py"),
    "crash": ("toy/numbers.py", "return 3 * x", "import os; os._exit(0)", None),
    "timeout": ("toy/numbers.py", "x > 5", "x < 5", None),
    "doubtful": ("toy/halves.py", "x / 2", "x // 2", "tests/test_halves.py::test_half"),  # which fails without it too
}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A tree with a package `toy`, its tests, a mutation for each outcome, and the map of its tests."""
    for folder in ("toy", "tests", "scripts/mutations"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "toy" / "__init__.py").touch()
    (tmp_path / "toy" / "numbers.py").write_text(CODE)
    (tmp_path / "toy" / "halves.py").write_text("def half(x):\n    return x / 2\n")
    (tmp_path / "tests" / "test_toy.py").write_text(TESTS)
    (tmp_path / "tests" / "test_halves.py").write_text(HALVES)
    (tmp_path / "pytest.ini").touch()
    entries = [
        {"id": name, "area": "core", "file": file, "old": old, "new": new, "harm": f"harm of {name}"}
        for name, (file, old, new, _) in ENTRIES.items()
    ]
    (tmp_path / "scripts" / "mutations" / "toy.yaml").write_text(yaml.safe_dump(entries))
    names = ["toy.py::test_double", "toy.py::test_triple_is_called", "toy.py::test_wait", "halves.py::test_half"]
    seconds = {f"tests/test_{name}": 0.01 for name in names}
    double, triple, waits, halves = ({test} for test in seconds)
    runs = {"seen": double, "survived": triple, "crash": triple, "timeout": waits, "doubtful": halves}
    write_map(tmp_path / "outputs" / "mutations" / "map.json", Map(seconds, runs, set()))
    return tmp_path


def mutate(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program on another tree than its own, where a mutation may take six seconds."""
    script = (
        f"import sys; sys.path.insert(0, {str(SCRIPTS)!r})\n"
        "import mutate; from pathlib import Path\n"
        f"mutate.ROOT, mutate.PACKAGE, mutate.SLOW, mutate.LIMIT = Path({str(root)!r}), 'toy', '', 6\n"
        "sys.exit(mutate.main(sys.argv[1:]))"
    )
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=240)


@pytest.mark.slow
def test_each_mutation_is_told_by_what_became_of_it(toy: Path) -> None:
    done = mutate(toy)
    assert done.returncode == 0, done.stderr
    found = json.loads((toy / "scripts" / "results" / "mutations.json").read_text())
    expected = {name: (name, killer) for name, (*_, killer) in ENTRIES.items()}
    assert {name: (entry["outcome"], entry.get("killer")) for name, entry in found.items()} == expected, done.stdout
    core = [cell.strip() for cell in done.stdout.partition("core")[2].split("│")[1:7]]
    assert core == ["6", "2", "33 %", "1", "2", "1"], done.stdout
    assert "harm of survived" in done.stdout
    assert "harm of seen" not in done.stdout
    assert (toy / "toy" / "numbers.py").read_text() == CODE


def test_quick_fails_once_a_mutation_is_no_longer_seen(toy: Path) -> None:
    killer = ENTRIES["seen"][-1]
    entries = {name: {"outcome": "seen", "killer": killer, "seconds": 0.01} for name in ("seen", "survived")}
    (toy / "scripts" / "results").mkdir()
    (toy / "scripts" / "results" / "mutations.json").write_text(json.dumps(entries))
    done = mutate(toy, "--quick")
    assert done.returncode == 1, done.stderr
    assert (
        done.stdout == f"survived: not seen by {killer} (survived): harm of survived\n2 of 2 mutations tried, 1 seen\n"
    )
    done = mutate(toy, "--quick", "--only", "seen")
    assert (done.returncode, done.stdout) == (0, "1 of 1 mutations tried, 1 seen\n")


def test_a_stale_edit_is_refused_by_name_before_anything_runs(toy: Path) -> None:
    (toy / "toy" / "numbers.py").write_text(CODE.replace("2 * x", "x + x"))
    done = mutate(toy)
    assert done.returncode == 2
    assert done.stdout == "seen is stale: its `old` stands 0 times in toy/numbers.py, not once\n"
    assert not (toy / "scripts" / "results").exists()


def test_an_edit_that_is_no_python_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match="M is no Python"):
        edited(tmp_path, Mutation("M", "core", "a.py", "= 1", "= = 1", ""))


def test_equivalent_mutations_run_only_by_name() -> None:
    same = Mutation("same", "core", "a.py", "", "", "", "it changes nothing")
    other = Mutation("other", "data", "a.py", "", "", "")
    assert choose([same, other], None, None) == [other]
    assert choose([same, other], "same", None) == [same]
    assert choose([same, other], None, "core") == []
    with pytest.raises(ValueError, match="third: no mutation has this id"):
        choose([same, other], "third", None)


def test_a_test_is_kept_with_its_own_seconds_and_a_survivor_with_what_was_not_asked() -> None:
    seen = Outcome("seen", ["b"], {"a": 5.0, "b": 0.5}, 9.0)
    assert entry_of(seen, 7) == {"outcome": "seen", "killer": "b", "seconds": 0.5}
    blind = Outcome("import", [], {}, 9.0)  # not even conftest.py is imported
    assert entry_of(blind, 7) == {"outcome": "import", "seconds": 9.0}
    survived = Outcome("survived", [], {"a": 5.0, "b": 0.5}, 9.0)
    assert entry_of(survived, 7) == {"outcome": "survived", "seconds": 9.0, "asked": 2, "not_asked": 7}


def test_those_are_asked_who_run_the_statement_then_others_of_their_files() -> None:
    """90 s have room for one of each function, 1 + 2 + 30, and then for the second of `slow`, 40, not for its third;
    20 s have room for `fast` and `other` alone, and a third of that for none of the others but `g`."""
    running = {"t::slow[0]": 30.0, "t::slow[1]": 40.0, "t::slow[2]": 50.0, "t::fast": 1.0, "t::other": 2.0}
    known = Map({**running, "t::g": 3.0, "u::h": 0.5}, {"f1": {*running}, "f2": {"u::h"}}, set())
    order = ["t::fast", "t::other", "t::slow[0]", "t::slow[1]"]
    assert about(known, "f1", ["f1", "f2"], 90) == ([*order, "t::g"], 1)
    assert about(known, "f1", ["f1", "f2"], 20) == ([*order[:2], "t::g"], 3)
    whole, left_out = about(known, "f1", ["f1", "f2"], math.inf)
    assert ({*whole}, left_out) == ({*running}, 0)


def test_survivors_are_asked_of_again_where_tests_were_left_out() -> None:
    names = ("seen", "survived", "whole", "crashed", "new")
    mutations = [Mutation(name, "core", "f.py", "a", "b", "") for name in names]
    results = {
        "seen": {"outcome": "seen", "killer": "t::a", "seconds": 1.0},
        "survived": {"outcome": "survived", "seconds": 1.0, "asked": 2, "not_asked": 3},
        "whole": {"outcome": "survived", "seconds": 1.0, "asked": 5, "not_asked": 0},
        "crashed": {"outcome": "crash", "seconds": 1.0, "asked": 2, "not_asked": 3},
    }
    assert [mutation.id for mutation in choose_survivors(mutations, results)] == ["survived"]


def test_of_a_statement_that_nobody_runs_those_of_its_file_are_asked_or_any() -> None:
    known = Map({"t::a": 1.0, "u::b": 2.0, "v::c": 3.0}, {"f1": {"u::b"}}, set())
    assert about(known, "f2", ["f1", "f2"], 90) == (["u::b"], 0)
    assert about(known, "g1", ["g1"], 3.5) == (["t::a", "u::b"], 1)


def test_those_that_share_something_stay_together_in_their_order() -> None:
    """They take 5 s together, and so come after the 4 s of `b::z`."""
    known = Map({"a::x": 3.0, "a::y": 2.0, "b::z": 4.0, "b::u": 6.0, "a::v": 1.0}, {}, {"a::x", "a::y"})
    assert about(known, "f1", [], 90) == (["a::v", "b::z", "a::x", "a::y", "b::u"], 0)


@pytest.mark.slow
def test_the_map_names_the_tests_that_run_a_statement_also_in_a_program_or_a_fixture(toy: Path) -> None:
    """`triple` is called by a program that a test starts, `wait` by a fixture for two tests, `double` by a test."""
    (toy / "tests" / "test_toy.py").write_text(MAPPED)
    assert mutate(toy, "--map").returncode == 0
    known = read_map(toy / "outputs" / "mutations" / "map.json")
    of = {name: {test.rpartition("::")[2] for test in tests} for name, tests in known.tests.items()}
    assert of == {
        "seen": {"test_double"},
        "survived": {"test_program"},
        "crash": {"test_program"},
        "timeout": {"test_one", "test_two"},
        "doubtful": set(),
        "import": {"test_program"},  # which imports the module anew
    }
    assert known.together == {"tests/test_toy.py::test_one", "tests/test_toy.py::test_two"}


def test_a_map_is_read_as_it_was_written(tmp_path: Path) -> None:
    known = Map({"one": 0.5, "two": 2.0}, {"f1": {"one", "two"}, "f2": {"two"}, "f3": set()}, {"two"})
    write_map(tmp_path / "map.json", known)
    assert read_map(tmp_path / "map.json") == known
    assert read_map(tmp_path / "none.json") == Map({}, {}, set())


@pytest.mark.parametrize(
    ("old", "new", "statement"),
    [
        ("x * 1", "x * 2", "y = ["),
        ("x + 1", "x - 1", "return abs("),
        ("x > 5", "x < 5", "if x > 5:"),
        ("x < 0", "x > 0", "if x > 5:"),
        ("LIMIT = 3", "LIMIT = 4", "LIMIT = 3"),
        ("a.real", "a.imag", "get = lambda a: a.real"),
        ("x, z=7", "x, z=8", "if x > 5:"),
    ],
)
def test_a_note_stands_before_the_innermost_statement(tmp_path: Path, old: str, new: str, statement: str) -> None:
    """But for an elif, before which nothing may stand: the whole if has the note; and for a default, the function."""
    lines = [
        "LIMIT = 3",
        "if x > 5:",
        "    y = [",
        "        x * 1,",
        "    ]",
        "elif x < 0:",
        "    y = 2",
        "get = lambda a: a.real",
    ]
    code = (
        'def f(x, z=7):\n    """Says."""\n'
        + "\n".join(f"    {each}" for each in lines[1:])
        + "\n    return abs(\n        x + 1\n    )\n"
    )
    text = f"{lines[0]}\n{code}"
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "f.py").write_text(text)
    assert add_notes(tmp_path, "toy", [("f1", "toy/f.py", text, text.replace(old, new))]) == []
    noted = (tmp_path / "toy" / "f.py").read_text().splitlines()
    where = next(number for number, each in enumerate(noted) if "f1" in each)
    assert noted[:where] + noted[where + 1 :] == text.splitlines()
    assert noted[where + 1].strip() == statement


@pytest.mark.parametrize("name", sorted(file.stem for file in (SCRIPTS / "mutations").glob("*.yaml")))
def test_every_mutation_fits_the_tree_of_today(name: str) -> None:
    stale = []
    for mutation in read_lists(ROOT, name):
        try:
            edited(ROOT, mutation)
        except ValueError as error:
            stale.append(str(error))
    assert not stale


def test_no_two_mutations_share_an_id() -> None:
    assert {mutation.area for mutation in read_lists(ROOT)} == {
        "core",
        "algos",
        "run",
        "wiring",
        "data",
        "report",
    }


def test_new_tests_are_added_to_what_is_known() -> None:
    old = Map({"a": 1.0, "b": 2.0}, {"P1": {"a"}, "P2": {"b"}}, {"b"})
    found = add_tests(old, Map({"b": 3.0, "c": 4.0}, {"P1": {"c"}, "P3": {"b"}}, {"c"}))
    assert found == Map({"a": 1.0, "b": 3.0, "c": 4.0}, {"P1": {"a", "c"}, "P2": {"b"}, "P3": {"b"}}, {"b", "c"})


DRAWN_FROM = """
def find(rows: list[int] = [0], width=1) -> int:
    'Find 3 of them < 4.'
    assert len(rows) > 2, 'more'
    super().find(rows, width=5)
    for row in rows:
        if not row and width - row < 0:
            continue
        print(row, flush=True)
    raise ValueError(f'{1 + 1}')
"""


def test_edits_are_drawn_from_code_alone(tmp_path: Path) -> None:
    """Every edit of a function is drawn by some seed, and none of a text, an annotation, what is asserted or raised."""
    (tmp_path / "some").mkdir()
    (tmp_path / "some/mod.py").write_text(DRAWN_FROM)
    entries = [draw(tmp_path, "some", 5, seed)[0] for seed in range(200)]
    assert all(DRAWN_FROM.count(entry["old"]) == 1 for entry in entries)
    found = sorted({DRAWN_FROM.replace(entry["old"], entry["new"]) for entry in entries})
    edits = [
        ("width=1", "width=2"),
        ("super().find(rows, width=5)", "super().find(rows)"),
        ("width=5", "width=10"),
        ("not row", "row"),
        (" and ", " or "),
        ("width - row", "width + row"),
        ("< 0", "<= 0"),
        ("< 0:", "< 1:"),
        ("continue", "break"),
        ("print(row, flush=True)", "pass"),
        ("print(row, flush=True)", "print(row)"),
        ("flush=True", "flush=False"),
    ]
    assert found == sorted(DRAWN_FROM.replace(old, new) for old, new in edits)


def test_one_edit_is_drawn_of_a_function(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    functions = [f"def f{k}(x, y):\n    return x + y * {k + 2} < 1\n" for k in range(9)]
    (tmp_path / "some/mod.py").write_text("\n\n".join(functions))
    entries = draw(tmp_path, "some", 7, 4)
    assert len({entry["harm"].partition(":")[0] for entry in entries}) == len(entries) == 7
    assert entries == draw(tmp_path, "some", 7, 4) != draw(tmp_path, "some", 7, 5)
    (tmp_path / "scripts/mutations").mkdir(parents=True)
    write_drawn(entries, tmp_path / "scripts/mutations/drawn4.yaml", 4)
    assert [one.id for one in read_lists(tmp_path)] == [entry["id"] for entry in entries]
    for one in read_lists(tmp_path):
        edited(tmp_path, one)
    assert len(draw(tmp_path, "some", 60, 4)) == 9
