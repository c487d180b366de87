"""Runs whose disk is full at some moment: they end in their own words, and go on once there is room."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kills import RUN, undisturbed
from small_run import Trial, do, go_on
from strike import NEEDS_ROOM


def fill_at_each_operation(root: Path, numbers: Sequence[int] | None = None, lasting: bool = True) -> Iterator[Trial]:
    """No room at the N-th operation that needs some: from there on until the end, or for that one alone."""
    expected, _, operations = undisturbed(root / "undisturbed", *RUN)
    needs = [number for number, line in enumerate(operations) if line.split()[0] in NEEDS_ROOM]
    for number in needs if numbers is None else [needs[number % len(needs)] for number in numbers]:
        place = root / f"full{lasting}{number}"
        code, said = do(place, *RUN, STRIKE=f"{'full' if lasting else 'short'} {number}")
        fault = f"disk full from each operation on {'to the end' if lasting else 'for that one alone'}"
        yield _judge(place, fault, f"{number}: {operations[number]}", code, said, expected)


def limit_each_size(root: Path, sizes: Sequence[int]) -> Iterator[Trial]:
    """No file may be longer than so many bytes, as with a quota; the images are decoded."""
    expected, decoded = undisturbed(root / "undisturbed", *RUN)[0], str(root / "undisturbed" / "run" / "cache")
    for size in sizes:
        place = root / f"limit{size}"
        code, said = do(place, *RUN, STRIKE=f"limit {size}", METARUN_CACHE=decoded)
        yield _judge(place, "no file longer than some bytes (RLIMIT_FSIZE)", f"{size} bytes", code, said, expected)


def fill_a_disk(root: Path, sizes: Sequence[int]) -> Iterator[Trial]:
    """A real disk of so many kB, in memory, that becomes larger before the run goes on; nothing where none is given."""
    expected = undisturbed(root / "undisturbed", *RUN)[0]
    for size in sizes:
        place = root / f"disk{size}"
        with _disk(place, size) as given:
            if not given:
                return
            code, said = do(place, *RUN)
            subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
            yield _judge(place, "a small disk that runs full (tmpfs)", f"{size} kB", code, said, expected)


@contextmanager
def _disk(place: Path, size: int) -> Iterator[bool]:
    place.mkdir(parents=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", str(place)], capture_output=True)
    try:
        yield made.returncode == 0
    finally:
        if made.returncode == 0:
            subprocess.run(["umount", "-l", str(place)], check=True)


def _judge(place: Path, fault: str, moment: str, code: int, said: str, expected: dict[str, object]) -> Trial:
    """Whether the run said which file had no room, and what it found after it went on with room."""
    words = ("No space left on device", "File too large")
    if "Traceback" in said or code not in (0, 1, 2) or (code and not any(word in said for word in words)):
        return Trial(fault, moment, f"ended with {code}: {said[-700:]}")
    if litter := [str(path.relative_to(place)) for path in place.rglob("*.part")]:
        return Trial(fault, moment, f"left behind: {' '.join(litter)}")
    trial = Trial(fault, moment, *go_on(place, RUN, expected))
    if trial.held and not place.is_mount():
        shutil.rmtree(place)
    return trial
