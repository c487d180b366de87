"""Runs that are killed, or told to stop, and gone on with: they end with the numbers of one that was left alone."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from commands import Command
from small_run import WORDS, Trial, begin, compare, do, facts, go_on, strike_group
from strike import DIARY

RUN = [*WORDS, "hydra.run.dir=r"]

MOMENTS = (  # a word of the operation that does not happen any more, and its number among those with the word
    ("r/.hydra/lock", 0), (".safetensors.PID.part w", 0), ("os.rename cache/", 0), ("overrides.yaml.PID.part w", 0),
    ("os.rename r/.hydra/config.yaml", 0), ("run.log", 0), ("metrics.jsonl", 0), ("last.pt.PID.part w", 0),
    ("os.rename r/checkpoints/best.pt", 0), ("os.rename r/checkpoints/last.pt", 2), ("os.remove r/checkpoints/prev", 1),
    ("os.link", 2), ("os.rename r/checkpoints/best.pt", 2), ("test_tasks.npz.PID.part w", 0),
    ("os.rename r/test_tasks.npz", 0), ("os.rename r/results.json", 0),
)  # fmt: skip

SIGNALS = {"SIGTERM": (143, -15), "SIGINT": (130, -2), "SIGHUP": (129, -1), "SIGUSR2": (140, -12)}
"""Exit codes of a run that a signal reaches before its end; negative where it ends by the signal itself."""


@cache
def undisturbed(place: Path, *words: str) -> tuple[dict[str, Any], float, list[str]]:
    """What such a run finds, how many seconds it takes, and its operations on files."""
    shutil.rmtree(place, ignore_errors=True)
    do(place / "first", *words)
    began = time.monotonic()
    code, said = do(place / "run", *words, STRIKE="none")
    assert code == 0, said
    return facts(place / "run" / "r"), time.monotonic() - began, (place / "run" / DIARY).read_text().splitlines()


def kill_at_moments(root: Path, moments: Sequence[tuple[str, int]] = MOMENTS) -> Iterator[Trial]:
    """Kill runs at chosen operations on files, just before they happen."""
    expected = undisturbed(root / "undisturbed", *RUN)[0]
    for number, (word, which) in enumerate(moments):
        place = root / f"moment{number}"
        code, said = do(place, *RUN, STRIKE=f"kill {which} {word}")
        yield _outcome("kill -9 at chosen moments", f"{word} {which}", place, RUN, expected, code == -9, said)


def kill_at_each_operation(root: Path, every: int = 1) -> Iterator[Trial]:
    """Kill runs before their N-th operation on files, for each N, or for every so many of them."""
    expected, _, operations = undisturbed(root / "undisturbed", *RUN)
    for number in range(every // 2, len(operations), every):
        place = root / f"operation{number}"
        code, said = do(place, *RUN, STRIKE=f"kill {number}")
        moment = f"{number}: {operations[number]}"
        yield _outcome("kill -9 before each operation on files", moment, place, RUN, expected, code == -9, said)


def kill_at_random(root: Path, times: int, seed: int = 0) -> Iterator[Trial]:
    """Kill runs at random moments, a third of them again while they are resumed."""
    expected, length, _ = undisturbed(root / "undisturbed", *RUN)
    draw = random.Random(seed)
    for number in range(times):
        place, seconds = root / f"random{number}", length * (number + draw.random()) / times
        command = begin(place, *RUN)
        again = draw.random() < 1 / 3
        _strike_after(command, seconds, signal.SIGKILL)
        if again and (place / "r" / ".hydra" / "config.yaml").exists():
            _strike_after(begin(place, "resume", "r"), draw.random() * length, signal.SIGKILL)
        fault = "kill -9 at random moments" + (", and while it resumes" if again else "")
        yield _outcome(fault, f"{seconds:.2f} s", place, RUN, expected)


def kill_while_resuming(root: Path, numbers: Sequence[int]) -> Iterator[Trial]:
    """Kill a run that resumes before its N-th operation on files."""
    expected = undisturbed(root / "undisturbed", *RUN)[0]
    for number in numbers:
        place = root / f"resuming{number}"
        do(place, *RUN, STRIKE="kill 3 os.rename r/checkpoints/last.pt")
        code, said = do(place, "resume", "r", STRIKE=f"kill {number}")
        if code == 0 and len((place / DIARY).read_text().splitlines()) <= number:
            return  # it has fewer operations
        yield _outcome("kill -9 during a resume", f"operation {number}", place, RUN, expected, code == -9, said)


def stop_by_signal(root: Path, times: int, name: str, twice: bool = False, seed: int = 1) -> Iterator[Trial]:
    """Send a signal at random moments."""
    expected, length, _ = undisturbed(root / "undisturbed", *RUN)
    draw = random.Random(f"{name}{seed}")
    for number in range(times):
        place, seconds = root / f"{name}{twice}{number}", length * (number + draw.random()) / times
        command = begin(place, *RUN)
        code = _strike_after(command, seconds, signal.Signals[name], again=draw.random() / 20 if twice else None)
        said = "\n".join(command.communicate())
        trial = _outcome(name + " twice" * twice, f"{seconds:.2f} s", place, RUN, expected)
        right = code in (0, *SIGNALS[name]) and "Traceback" not in said
        yield trial if right else trial._replace(outcome=f"ended with {code}: {said[-600:]}")


def kill_one_of_four_that_prepare(root: Path, times: int) -> Iterator[Trial]:
    """Kill the one of four runs that decodes the images that they all need."""
    expected = undisturbed(root / "undisturbed", *RUN)[0]
    for number in range(times):
        place = root / f"four{number}"
        shared = str(place / "cache")
        first = begin(place / "0", *RUN, METARUN_CACHE=shared, STRIKE=f"kill {number} .part")
        runs = [first, *(begin(place / str(i), *RUN, METARUN_CACHE=shared) for i in range(1, 4))]
        yield from _end_all(place, runs, expected)


def _end_all(place: Path, runs: Sequence[Command], expected: dict[str, Any]) -> Iterator[Trial]:
    for i, run in enumerate(runs):
        run.communicate(timeout=300)
        outcome, lost = "equal", 0
        if run.returncode:
            outcome, lost = go_on(place / str(i), RUN, expected)
        else:
            outcome = compare(expected, place / str(i) / "r")
        yield Trial("kill -9 of one of four that decode the same images", f"run {i}", outcome, lost)


def kill_one_process_of_two(root: Path, times: int, seed: int = 2) -> Iterator[Trial]:
    """Kill the second process of a run at random moments after it has begun to train."""
    words = [*RUN, "run.processes=2", "run.steps=40"]
    expected, _, _ = undisturbed(root / "undisturbed2", *words)
    draw = random.Random(seed)
    for number in range(times):
        place = root / f"two{number}"
        run = begin(place, *words)
        while run.poll() is None and not (place / "r" / "metrics.jsonl").exists():
            time.sleep(0.002)
        time.sleep(draw.random() * 0.3)
        for child in _children(run.pid)[:1]:
            subprocess.run(["kill", "-9", str(child)], check=False, capture_output=True)
        out, error = run.communicate(timeout=300)
        trial = _outcome("kill -9 of one process of two", f"trial {number}", place, words, expected)
        right = run.returncode == 1 and "Traceback" not in out
        yield trial if right else trial._replace(outcome=f"ended with {run.returncode}: {(out + error)[-600:]}")


def kill_a_sweep(root: Path, times: int, whole: bool = True, seed: int = 3) -> Iterator[Trial]:
    """Kill a sweep whose jobs run side by side at random moments: all of it, or the process that leads alone."""
    words = ["-m", *WORDS, "seed=0,1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=s"]
    place = root / "sweep"
    began = time.monotonic()
    code, said = do(place, *words)
    length = time.monotonic() - began
    assert code == 0, said
    expected = {folder.name: facts(folder) for folder in _jobs(place)}
    draw = random.Random(seed)
    for number in range(times):
        place = root / f"sweep{whole}{number}"
        run = begin(place, *words)
        seconds = length * (number + draw.random()) / times
        _strike_after(run, seconds, signal.SIGKILL, whole=whole)
        fault = f"kill -9 of a sweep by joblib, {'whole' if whole else 'its leader alone'}"
        for _ in range(20):  # jobs without a leader may go on for some seconds, and hold their folders
            code, said = do(place, *words)
            if code == 0 or "another process is running" not in said:
                break
            time.sleep(1)
        found = {folder.name: compare(expected[folder.name], folder) for folder in _jobs(place)}
        wrong = {name: outcome for name, outcome in found.items() if outcome != "equal"}
        outcome = f"ended with {code}: {said[-500:]}" if code else str(wrong or "equal")
        yield Trial(fault, f"{seconds:.1f} s", outcome)


def start_two_at_once(root: Path, times: int) -> Iterator[Trial]:
    """Start the same run twice in the same folder, the second a moment later, and resume both ways."""
    expected, length, _ = undisturbed(root / "undisturbed", *RUN)
    for number in range(times):
        place = root / f"twice{number}"
        runs = [begin(place, *RUN)]
        time.sleep(length * number / times)
        again = ["resume", "r"] if number % 2 and (place / "r" / ".hydra" / "config.yaml").exists() else RUN
        runs.append(begin(place, *again))
        said = ["".join(run.communicate(timeout=300)) for run in runs]
        codes = sorted(run.returncode or 0 for run in runs)
        told = any("another process is running" in text or "already holds a run" in text for text in said)
        right = (codes == [0, 2] and told) or (codes == [0, 0] and again != RUN)
        outcome = compare(expected, place / "r") if right else f"ended with {codes}: {[text[-300:] for text in said]}"
        yield Trial("two runs in one folder at the same time", f"{length * number / times:.2f} s apart", outcome)


def _outcome(
    fault: str,
    moment: str,
    place: Path,
    words: list[str],
    expected: dict[str, Any],
    struck: bool = True,
    said: str = "",
) -> Trial:
    """Go on with the run that was struck, and forget it if it held."""
    if not struck:
        return Trial(fault, moment, f"was not struck: {said[-300:]}")
    trial = Trial(fault, moment, *go_on(place, words, expected))
    if trial.held:
        shutil.rmtree(place)
    return trial


def _strike_after(command: Command, seconds: float, signum: int, again: float | None = None, whole: bool = True) -> int:
    """Send the signal after so many seconds, and maybe again; returns the exit code."""
    for pause in (seconds, again):
        if pause is None:
            break
        try:
            return command.wait(pause)
        except subprocess.TimeoutExpired:
            strike_group(command, signum) if whole else command.send_signal(signum)
    try:
        return command.wait(120)
    except subprocess.TimeoutExpired:
        strike_group(command, signal.SIGKILL)
        raise


def _children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def _jobs(place: Path) -> list[Path]:
    return sorted(path.parent.parent for path in place.glob("s/*/.hydra/config.yaml"))
