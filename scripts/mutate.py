"""Which mistakes the tests see: each mutation is one small edit of the package, under which the tests about it are run.

uv run python scripts/mutate.py --map            which tests run them: first, and after tests changed; runs all tests
uv run python scripts/mutate.py --map tests/test_x.py    the same of new tests alone, added to what is known
uv run python scripts/mutate.py                  all mutations, into scripts/results/mutations.json
uv run python scripts/mutate.py --only P9,A1     these; so do --list known, --area run
uv run python scripts/mutate.py --survivors      those that got past the tests which were asked, by all that run them
uv run python scripts/mutate.py --draw 60 --seed 5       a new list of 60, drawn: scripts/mutations/drawn5.yaml
uv run python scripts/mutate.py --quick          two minutes, no map: some that were seen; fails if one no longer is

A mutation is an entry of scripts/mutations/*.yaml: `old`, which stands once in `file`, gives way to `new`; `harm` is
what a user would get, and `equivalent`, where it stands, why nobody would: those are not run. Each worker has a copy of
the tree, and each mutation a process of its own, forked from this one, which has imported what is slow to import. The
test that saw it last time runs first, then those that run the edited statement, the fastest first, until one fails. At
the end those that failed run without any edit: what was seen only by tests that fail anyway is `doubtful`.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from mutations.draw import draw, write_drawn
from mutations.notes import FOLDER, add_notes
from mutations.pool import Job, Outcome, Pool, copy
from mutations.touched import Map, about, add_tests, gather_notes, read_map, write_map
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "metarun"
SLOW = "torch torchvision numpy scipy.special scipy.stats hydra omegaconf xdist PIL.Image altair optuna"
"""Imported before the first mutation, where it is installed; the package is not."""

QUICK_SECONDS, QUICK_TEST = 85.0, 10.0
"""--quick begins no mutation after so many seconds, and takes none whose test takes longer than the second."""

LIMIT = 120.0
"""Seconds of computing after which a mutation is a `timeout`, beside three times what its tests take without it."""

console = Console(highlight=False, width=150)


class Mutation(NamedTuple):
    """One entry of a list."""

    id: str
    area: str
    file: str
    old: str
    new: str
    harm: str
    equivalent: str = ""


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for; returns the exit code."""
    started = time.perf_counter()
    asked = parser().parse_args(arguments)
    if asked.draw:
        out = ROOT / "scripts" / "mutations" / f"drawn{asked.seed}.yaml"
        write_drawn(draw(ROOT, PACKAGE, asked.draw, asked.seed), out, asked.seed)
        return 0
    try:
        chosen = choose(read_lists(ROOT, asked.list), asked.only, asked.area)
        for mutation in chosen:
            edited(ROOT, mutation)
    except ValueError as error:
        console.print(error)
        return 2
    if asked.map is not None:
        return draw_map(chosen, asked.workers, asked.map)
    assert PACKAGE not in sys.modules, "forked processes would have the package without the edit"
    for name in SLOW.split():
        if find_spec(name.partition(".")[0]):
            importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="metarun-mutate-") as folder:
        pool = Pool(ROOT, PACKAGE, Path(folder), asked.workers)
        if asked.quick:
            return quick(pool, chosen, started)
        if asked.survivors:
            return campaign(pool, choose_survivors(chosen, read_results()), math.inf)
        return campaign(pool, chosen, asked.seconds)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--map", nargs="*", metavar="TEST", help="note which tests, all or these, run each statement")
    made.add_argument("--quick", action="store_true", help="some of those that were seen, by the test that saw each")
    made.add_argument(
        "--survivors", action="store_true", help="which were not asked about by all that run them: by all"
    )
    made.add_argument("--draw", type=int, metavar="N", help="write a list of N drawn ones, and run none")
    made.add_argument("--seed", type=int, default=1, help="by which they are drawn; default 1")
    made.add_argument("--only", help="ids with commas")
    made.add_argument("--list", help="a file of scripts/mutations, without .yaml; default all")
    made.add_argument("--area", help="core, algos, run, wiring, data or report; default all")
    made.add_argument("--seconds", type=float, default=90, help="of tests of a mutation at most; default 90")
    made.add_argument("--workers", type=int, default=2, help="mutations at once; default 2")
    return made


def read_lists(root: Path, name: str | None = None) -> list[Mutation]:
    """The mutations of one list or all. Raises: ValueError for an id that stands twice, or a list without entries."""
    files = sorted((root / "scripts" / "mutations").glob(f"{name or '*'}.yaml"))
    found = [Mutation(**entry) for file in files for entry in yaml.safe_load(file.read_text())]
    ids = [mutation.id for mutation in found]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)}: more than one mutation has this id")
    if not found:
        raise ValueError(f"there is no mutation in scripts/mutations/{name or '*'}.yaml")
    return found


def choose(mutations: Iterable[Mutation], only: str | None, area: str | None) -> list[Mutation]:
    """Those asked for; of equivalent ones only those that are named. Raises: ValueError for an id that is not there."""
    known = {mutation.id: mutation for mutation in mutations}
    ids = only.split(",") if only else [name for name, mutation in known.items() if not mutation.equivalent]
    if unknown := [name for name in ids if name not in known]:
        raise ValueError(f"{', '.join(unknown)}: no mutation has this id")
    return [known[name] for name in ids if area in (None, known[name].area)]


def choose_survivors(mutations: Iterable[Mutation], results: Mapping[str, Mapping[str, Any]]) -> list[Mutation]:
    """Those that survived the tests they were asked of, where others that run their statement were left out."""
    return [
        one
        for one in mutations
        if (found := results.get(one.id, {})).get("not_asked") and found["outcome"] == "survived"
    ]


def edited(root: Path, mutation: Mutation) -> tuple[str, str]:
    """The file before and after the edit. Raises: ValueError if the edit does not fit the file of today."""
    before = (root / mutation.file).read_text() if (root / mutation.file).is_file() else ""
    if (count := before.count(mutation.old)) != 1:
        raise ValueError(f"{mutation.id} is stale: its `old` stands {count} times in {mutation.file}, not once")
    after = before.replace(mutation.old, mutation.new)
    if mutation.file.endswith(".py"):
        try:
            compile(after, mutation.file, "exec")
        except SyntaxError as error:
            raise ValueError(f"{mutation.id} is no Python: {error}") from error
    return before, after


def draw_map(mutations: Sequence[Mutation], workers: int, tests: Sequence[str] = ()) -> int:
    """Run all tests, or those named, once in a copy of the tree whose mutated statements note who runs them.

    That of this program is left out: it fails where the tree was edited. Others that fail there are never asked.
    """
    with tempfile.TemporaryDirectory(prefix="metarun-notes-") as folder:
        tree, notes = Path(folder) / "tree", Path(folder) / "notes"
        notes.mkdir()
        copy(ROOT, tree)
        without = add_notes(tree, PACKAGE, [(m.id, m.file, *edited(ROOT, m)) for m in mutations])
        search = os.pathsep.join([str(tree), str(Path(__file__).parent)])
        env = {**os.environ, "PYTHONPATH": search, "PYTHONDONTWRITEBYTECODE": "1", FOLDER: str(notes)}
        words = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            str(workers),
            "-p",
            "no:cacheprovider",
            "-p",
            "mutations.notes",
        ]
        words += ["-m", "slow or not slow", "--ignore=tests/test_mutate.py", *tests]
        subprocess.run(words, cwd=tree, env=env)
        known = gather_notes(notes)
    if tests:
        known = add_tests(read_map(map_file()), known)
    write_map(map_file(), known)
    asked = [m for m in mutations if known.tests.get(m.id)]
    console.print(f"{len(known.seconds)} tests; of {len(mutations)} mutations {len(asked)} are run by some", end="")
    console.print(f"; no statement of their own have {', '.join(without)}" if without else "")
    return 0 if known.seconds else 1


def map_file() -> Path:
    """Where --map leaves what the other runs need."""
    return ROOT / "outputs" / "mutations" / "map.json"


def results_file() -> Path:
    """What became of each mutation when it was last run."""
    return ROOT / "scripts" / "results" / "mutations.json"


def read_results() -> dict[str, dict[str, Any]]:
    """Outcome, killer and seconds by id; nothing before the first run."""
    return json.loads(results_file().read_text()) if results_file().exists() else {}


def write_results(entries: dict[str, dict[str, Any]]) -> None:
    """Keep the entries of the mutations that there are, a line each."""
    ids = {mutation.id for mutation in read_lists(ROOT)}
    lines = [f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in sorted(entries.items()) if name in ids]
    results_file().parent.mkdir(parents=True, exist_ok=True)
    results_file().write_text("{\n" + ",\n".join(lines) + "\n}\n")


def campaign(pool: Pool, mutations: Sequence[Mutation], budget: float) -> int:
    """Run the tests about each mutation, keep what becomes of it, and say how many are seen."""
    known, results = read_map(map_file()), read_results()
    if not known.seconds:
        console.print("there is no map of tests and lines yet: scripts/mutate.py --map")
        return 2
    left_out, of_file = dict[str, int](), defaultdict[str, list[str]](list)
    for mutation in read_lists(ROOT):
        of_file[mutation.file].append(mutation.id)
    jobs = (job_of(mutation, of_file[mutation.file], known, results, budget, left_out) for mutation in mutations)
    found: dict[str, dict[str, Any]] = {}
    for job, outcome in pool.run(jobs):
        found[job.name] = entry = entry_of(outcome, left_out[job.name])
        console.print(f"{job.name}: {entry['outcome']}, {outcome.whole:.0f} s {entry.get('killer', outcome.said)}")
        write_results(results | found)  # a run that is ended early keeps what it has
    killers = sorted({entry["killer"] for entry in found.values() if "killer" in entry})
    if killers:
        for _, control in pool.run([Job("without an edit", [killers], 3600, stop=False)]):
            for entry in found.values():
                if entry.get("killer") in control.failed or control.what not in ("survived", "seen"):
                    entry["outcome"] = "doubtful"
    write_results(results | found)
    report(mutations, found)
    return 0


def job_of(
    mutation: Mutation,
    beside: Sequence[str],
    known: Map,
    results: dict[str, dict[str, Any]],
    budget: float,
    left_out: dict[str, int],
) -> Job:
    """The tests about a mutation, after the one that saw it last time; `left_out` is told how many there are more."""
    after = edited(ROOT, mutation)[1]
    tests, left_out[mutation.id] = about(known, mutation.id, beside, budget)
    killer = results.get(mutation.id, {}).get("killer")
    sessions = [[killer]] if killer else []
    expected = sum(known.seconds.get(test, 10) for test in [*itertools.chain(*sessions), *tests])
    return Job(mutation.id, [*sessions, tests], LIMIT + 3 * expected, (mutation.file, after))


def entry_of(outcome: Outcome, left_out: int) -> dict[str, Any]:
    """What is kept of a mutation's run: a killer's own seconds, or those of all tests."""
    if outcome.what in ("seen", "import"):
        killer = {"killer": outcome.failed[0]} if outcome.failed else {}
        seconds = outcome.seconds.get(killer.get("killer", ""), outcome.whole)
        return {"outcome": outcome.what, **killer, "seconds": round(seconds, 2)}
    asked = {"asked": len(outcome.seconds), "not_asked": left_out}
    return {"outcome": outcome.what, "seconds": round(outcome.whole, 2), **asked}


def report(mutations: Iterable[Mutation], found: dict[str, dict[str, Any]]) -> None:
    """A table by area, and what nobody saw."""
    tried = [mutation for mutation in mutations if mutation.id in found]
    table = Table("area", *("tried", "seen", "share", "of these by import", "timeout or crash", "doubtful"))
    for area in [*sorted({mutation.area for mutation in tried}), "all"]:
        outcomes = [found[mutation.id]["outcome"] for mutation in tried if area in (mutation.area, "all")]
        seen, failed = sum(map(outcomes.count, ("seen", "import"))), sum(map(outcomes.count, ("timeout", "crash")))
        counts = (outcomes.count("import"), failed, outcomes.count("doubtful"))
        table.add_row(area, str(len(outcomes)), str(seen), f"{100 * seen / len(outcomes):.0f} %", *map(str, counts))
    console.print(table)
    for mutation in tried:
        if (entry := found[mutation.id])["outcome"] not in ("seen", "import"):
            more = f" ({entry['not_asked']} tests not asked)" if entry.get("not_asked") else ""
            console.print(f"{mutation.id}, {mutation.file}: {entry['outcome']}{more}: {mutation.harm}")


def quick(pool: Pool, mutations: Sequence[Mutation], started: float) -> int:
    """Run what was seen by a fast test against that test, as many as fit, an area at a time; 1 if one is not seen."""
    results = read_results()
    seen = [m for m in mutations if "killer" in results.get(m.id, {}) and results[m.id]["outcome"] != "doubtful"]
    fast = sorted((results[m.id]["seconds"], m) for m in seen if results[m.id]["seconds"] <= QUICK_TEST)
    areas = [[m for _, m in fast if m.area == area] for area in dict.fromkeys(m.area for m in seen)]
    order = [m for same in itertools.zip_longest(*areas) for m in same if m]

    def jobs() -> Iterator[Job]:
        for m in order:
            if time.perf_counter() - started < QUICK_SECONDS:
                yield Job(m.id, [[results[m.id]["killer"]]], 30, (m.file, edited(ROOT, m)[1]))

    tried, missed, harms = 0, 0, {m.id: m.harm for m in order}
    for job, outcome in pool.run(jobs()):
        tried += 1
        if outcome.what not in ("seen", "import"):
            missed += 1
            console.print(
                f"{job.name}: not seen by {job.sessions[0][0]} ({outcome.what}): {harms[job.name]}", soft_wrap=True
            )
    console.print(f"{tried} of {len(order)} mutations tried, {tried - missed} seen")
    return int(missed > 0 or not tried)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
