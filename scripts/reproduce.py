"""The papers' numbers again: run the targets of conf/targets.yaml, and write our numbers beside theirs.

uv run python scripts/reproduce.py                                   # every target, and how far its runs are
uv run python scripts/reproduce.py maml_omniglot_5w1s                # run what is missing, go on with what was begun
uv run python scripts/reproduce.py all --seeds 0 --device cuda run.eval_batch_size=200
uv run python scripts/reproduce.py --from FOLDER --table             # take in runs made elsewhere, write the tables

Runs go to outputs/reproduce/EXPERIMENT/seed=S, one after the other; Ctrl-C and SIGTERM save first, and the same command
goes on. Several such commands may run at a time. What a run came to is kept in scripts/results/reproduction.json;
--table makes the table of scripts/README.md and the lines in the headers of conf/experiment from that file alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from reproduction import outcomes as kept
from reproduction.outcomes import Finder, Key, Outcome, read_outcomes
from reproduction.tables import write_headers, write_table
from reproduction.targets import TARGETS, Target, check_words, choose, read_targets

from metarun.app.commands.resume import MACHINE
from metarun.cli import command
from metarun.core.errors import ConfigError
from metarun.core.words import describe_state, format_with_name
from metarun.report.runs import Run, find_runs, read_run
from metarun.settings.conf import CONF

README = Path(__file__).resolve().parent / "README.md"


def main(arguments: Sequence[str]) -> int:
    """Do what was asked; returns 0, or the highest exit code of the runs. Raises: ConfigError for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "words", nargs="*", metavar="NAME", help="targets to run, or all; KEY=VALUE: settings of the machine"
    )
    parser.add_argument("--seeds", type=int, nargs="+", metavar="S", help="of the targets' seeds these alone")
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:N")
    parser.add_argument("--runs", type=Path, default=Path("outputs/reproduce"), metavar="FOLDER", help="where runs go")
    parser.add_argument(
        "--from", dest="sources", type=Path, nargs="+", default=[], metavar="FOLDER", help="take in finished runs"
    )
    parser.add_argument("--table", action="store_true", help="write the table and the headers of experiments")
    parser.add_argument("--targets", type=Path, default=TARGETS, metavar="FILE")
    parser.add_argument("--results", type=Path, default=kept.KEPT, metavar="FILE", help="where outcomes are kept")
    parser.add_argument("--readme", type=Path, default=README, metavar="FILE", help="that holds the table")
    parser.add_argument("--experiments", type=Path, default=CONF / "experiment", metavar="FOLDER")
    asked = parser.parse_intermixed_args(arguments)
    typed = [word for word in asked.words if "=" in word] + ([f"device={asked.device}"] if asked.device else [])
    check_words(typed)
    targets = read_targets(asked.targets)
    chosen = choose([word for word in asked.words if "=" not in word], targets)

    finder = Finder(targets.values())
    take_in(asked.sources, finder, asked.results)
    code = 0
    if chosen:
        code = run_targets(chosen, asked.seeds, typed, asked.runs, finder, asked.results)
    elif not asked.sources:
        for line in states(targets.values(), asked.runs, read_outcomes(asked.results)):
            print(line)
    if asked.table:
        found = read_outcomes(asked.results)
        write_table(asked.readme, [*targets.values()], found)
        write_headers(asked.experiments, [*targets.values()], found)
    return code


def take_in(folders: Sequence[Path], finder: Finder, file: Path) -> None:
    """Keep what the finished runs under `folders` came to; say what is left out, and why."""
    for run in find_runs(folders):
        if run.state != "finished":
            print(f"{run.folder} {describe_state(run.state)}: left out")
            continue
        try:
            outcome = finder.outcome(run)
        except ConfigError as error:
            print(f"left out: {error}")
            continue
        kept.keep(outcome, file)
        print(f"{run.folder}: {' '.join(outcome.words)} seed={outcome.seed}")


def run_targets(
    chosen: Sequence[Target], seeds: Sequence[int] | None, typed: Sequence[str], runs: Path, finder: Finder, file: Path
) -> int:
    """Run what is missing of the targets, the first seed of each, then the second, ...; returns the exit code.

    A run that fails does not stop the others; one that is interrupted does.
    """
    worst = 0
    for target, seed in in_turns(chosen, seeds):
        if (target.words, seed) in read_outcomes(file):
            continue
        folder = target.folder(runs, seed)
        state = state_of(read_run(folder))
        if state == "running":
            print(f"{folder} is running: left to the process that holds it")
            continue
        print(f"{target.name}, seed {seed}: {state}", flush=True)
        code = 0 if state == "done" else run_one(target, seed, typed, folder)
        if code > 128:
            return code
        if code == 0 and (run := read_run(folder)):
            kept.keep(finder.outcome(run, target), file)
        worst = max(worst, code)
    return worst


def in_turns(targets: Sequence[Target], seeds: Sequence[int] | None) -> Iterator[tuple[Target, int]]:
    """Every run of the targets once, seed by seed."""
    places = range(max(len(target.seeds) for target in targets))
    pairs = [(target, target.seeds[place]) for place in places for target in targets if place < len(target.seeds)]
    done: set[Key] = set()
    for target, seed in pairs:
        if (target.words, seed) not in done and (seeds is None or seed in seeds):
            done.add((target.words, seed))
            yield target, seed


def run_one(target: Target, seed: int, typed: Sequence[str], folder: Path) -> int:
    """Start the run in `folder`, or go on with it; returns the exit code of `metarun`."""
    if (folder / ".hydra" / "config.yaml").is_file():
        return command(["resume", str(folder), *(word for word in typed if word.partition("=")[0] in MACHINE)])
    quiet = [] if any(word.startswith("logger") for word in typed) else ["logger=none"]
    place = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return command([*target.words, f"seed={seed}", *quiet, *typed, f"hydra.run.dir='{place}'"])


def state_of(run: Run | None) -> str:
    """missing, done, running, or as `interrupted at step 300`: the step that it goes on from."""
    if run is None or run.state == "unstarted":
        return "missing"
    if run.state in ("finished", "running"):
        return "done" if run.state == "finished" else "running"
    steps = [line.get("step", 0) for line in run.lines()]
    step = run.results.get("saved_step") or (steps or [0])[-1]
    return f"{'failed' if run.state == 'failed' else 'interrupted'} at step {step}"


def states(targets: Iterable[Target], runs: Path, found: Mapping[Key, Outcome]) -> Iterator[str]:
    """A line for each target: the state of each of its seeds, or its score."""
    for target in targets:
        said = []
        for seed in target.seeds:
            outcome = found.get((target.words, seed))
            test = (outcome.test if outcome else {}).get(target.score)
            state = f"done ({format_with_name(target.score, test['mean'])})" if test else ""
            state = state or state_of(read_run(target.folder(runs, seed)))
            said.append(f"seed {seed} {state}")
        known = {where: minutes for where, minutes in (target.minutes or {}).items() if minutes is not None}
        long = "".join(f"; {minutes} minutes a seed on {where}" for where, minutes in known.items())
        yield f"{target.name}: {', '.join(said)}{long}"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ConfigError as error:
        print(f"reproduce: {error}", file=sys.stderr)
        sys.exit(2)
