"""Try faults on short runs: kills, signals, full disks, damaged files, W&B's server, odd words; and write a table.

python scripts/faults.py                             # every campaign; with --times 8 ten minutes on two cores
python scripts/faults.py kills disks --times 10      # some of them, with fewer random moments
python scripts/faults.py --table                     # and write the table into scripts/README.md
python scripts/faults.py --done trials.jsonl         # keep the trials, and go on after the campaigns that are there

A campaign is in tests/faults; a few of its trials run with the tests. A trial holds if the run, gone on with, ends with
the numbers of an undisturbed one (metrics.jsonl, results.json but for clocks, test_tasks.npz), or if the command names
the file that is damaged and ends with 2. A trial that does not hold is printed at length, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY / "tests" / "faults")]

import any_command  # noqa: E402
import damages  # noqa: E402
import full_disk  # noqa: E402
import kills  # noqa: E402
import long_runs  # noqa: E402
import wandb_away  # noqa: E402
from small_run import Trial  # noqa: E402

BEGIN, END = "<!-- faults: written by scripts/faults.py -->", "<!-- end of faults -->"
HEADS = ("fault", "tried", "equal numbers", "the file named", "neither", "outer steps made again, at most")

Campaign = Callable[[Path, int], Iterator[Trial]]


def try_kills(root: Path, times: int) -> Iterator[Trial]:
    yield from kills.kill_at_moments(root)
    yield from kills.kill_at_random(root, times)
    yield from kills.kill_at_each_operation(root)
    yield from kills.kill_while_resuming(root, range(0, 40, max(1, 40 // times)))
    yield from kills.kill_one_of_four_that_prepare(root, max(1, times // 10))
    yield from kills.start_two_at_once(root, times // 4)


def try_signals(root: Path, times: int) -> Iterator[Trial]:
    for name in kills.SIGNALS:
        yield from kills.stop_by_signal(root, times // 4, name)
    yield from kills.stop_by_signal(root, times // 4, "SIGINT", twice=True)


def try_processes(root: Path, times: int) -> Iterator[Trial]:
    yield from kills.kill_one_process_of_two(root, max(1, times // 10))
    for whole in (True, False):
        yield from kills.kill_a_sweep(root / f"sweep {whole}", max(1, times // 12), whole)


def try_disks(root: Path, times: int) -> Iterator[Trial]:
    for lasting in (True, False):
        yield from full_disk.fill_at_each_operation(root, lasting=lasting)
    yield from full_disk.limit_each_size(root, range(9_000, 36_000, 27_000 // max(2, times // 4)))
    yield from full_disk.fill_a_disk(root, [4, *range(580, 800, 220 // max(2, times // 4))])


def try_damages(root: Path, times: int) -> Iterator[Trial]:
    yield from damages.damage_each(root, seeds=range(max(1, times // 25)))


CAMPAIGNS: dict[str, Campaign] = {
    "kills": try_kills,
    "signals": try_signals,
    "processes": try_processes,
    "disks": try_disks,
    "damages": try_damages,
    "wandb": wandb_away.try_moods,
    "long": long_runs.watch_long_runs,
    "typed": any_command.type_all,
}


def make_table(trials: Iterable[Trial]) -> list[str]:
    """A line of Markdown for each fault."""
    by_fault: dict[str, list[Trial]] = {}
    for trial in trials:
        by_fault.setdefault(trial.fault, []).append(trial)
    lines = [f"| {' | '.join(HEADS)} |", f"|{' --- |' * len(HEADS)}"]
    for fault, found in by_fault.items():
        count = Counter(trial.outcome if trial.held else "neither" for trial in found)
        cells = [fault, len(found), *(count[name] or "" for name in ("equal", "said", "neither"))]
        lines.append(f"| {' | '.join(map(str, [*cells, max(trial.lost for trial in found) or '']))} |")
    return lines


def write_table(lines: list[str], command: str) -> None:
    """Write the table into README.md, with the command that made it."""
    page = REPOSITORY / "scripts" / "README.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    text = "\n".join([BEGIN, "", f"    {command}", "", *lines, "", END])
    page.write_text(f"{before}{text}{after}")


def try_campaign(name: str, times: int) -> list[Trial]:
    """Try a campaign in a folder of its own, and say what became of it."""
    began, root, trials = time.monotonic(), Path(tempfile.mkdtemp(prefix=f"faults-{name}-")), []
    for trial in CAMPAIGNS[name](root, times):
        trials.append(trial)
        if not trial.held:
            print(f"DOES NOT HOLD: {trial.fault}, {trial.moment}: {trial.outcome}", flush=True)
    shutil.rmtree(root, ignore_errors=True)
    print("\n".join([f"{name}: {time.monotonic() - began:.0f} s", *make_table(trials)]), flush=True)
    return trials


def read_done(path: Path | None) -> dict[str, list[Trial]]:
    """Read the trials of each campaign that was tried to its end."""
    lines = path.read_text().splitlines() if path and path.exists() else []
    return {name: [Trial(*trial) for trial in trials] for name, trials in map(json.loads, lines)}


def main() -> int:
    """Try what was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaigns", nargs="*", metavar="CAMPAIGN", help=f"of {', '.join(CAMPAIGNS)}; without: all")
    parser.add_argument("--times", type=int, default=50, help="random moments; other numbers follow (50)")
    parser.add_argument("--table", action="store_true", help="write the table into scripts/README.md")
    parser.add_argument("--done", type=Path, metavar="FILE", help="of trials; its campaigns are not tried again")
    asked = parser.parse_args()
    if unknown := {*asked.campaigns} - {*CAMPAIGNS}:
        parser.error(f"there is no campaign {', '.join(sorted(unknown))}; there are {', '.join(CAMPAIGNS)}")
    done = read_done(asked.done)
    for name in asked.campaigns or CAMPAIGNS:
        if name in done:
            continue
        done[name] = try_campaign(name, max(4, asked.times))
        if asked.done:
            with asked.done.open("a") as file:
                print(json.dumps([name, done[name]]), file=file)
    trials = [trial for name in asked.campaigns or CAMPAIGNS for trial in done[name]]
    lines = make_table(trials)
    if asked.table:
        write_table(lines, f"uv run python scripts/faults.py {' '.join([*asked.campaigns, f'--times {asked.times}'])}")
    return int(not all(trial.held for trial in trials))


if __name__ == "__main__":
    sys.exit(main())
