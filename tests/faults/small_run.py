"""A run of half a second that writes every file that a run writes, and what it found, to be compared."""

from __future__ import annotations

import json
import os
import re
import signal
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from commands import Command, start

from metarun.core.results_file import SEAL
from metarun.core.run_folder import SUMS

FEW = [
    "data=glyphs", "data.alphabets=6", "data.characters=6", "data.n_way=2", "data.n_query=2", "data.train.n_query=2",
    "data.train.n_way=2", "backbone=conv4", "backbone.hidden=4", "run.val_tasks=4", "run.test_tasks=12",
    "run.compile=false", "threads=1", "device=cpu",
]  # fmt: skip
TRAINING = [
    "algo=protonet", "data.rotation=random", "optim/schedule=cosine", "run.steps=11", "run.meta_batch_size=2",
    "run.val_every=3", "run.checkpoint_every=2", "run.log_every=1",
]  # fmt: skip
WORDS = [*FEW, *TRAINING, "logger=none"]
WARM = (*WORDS, "hydra.run.dir=r", "paths.cache=cache")

CLOCKS = {"seconds", "tasks_per_second", "wandb_id", "git", SEAL, SUMS}
"""What differs between two runs of the same command."""


class Trial(NamedTuple):
    """One fault, and what became of the run.

    Attributes:
        fault: its kind, as the table has it.
        moment: where it struck.
        outcome: `equal` numbers, `said` by a message that names the file, or what is wrong.
        lost: outer steps that were made again.
    """

    fault: str
    moment: str
    outcome: str
    lost: int = 0

    @property
    def held(self) -> bool:
        return self.outcome in ("equal", "said")


def begin(place: Path, *words: str, **environment: str | None) -> Command:
    """A command that was started in the folder `place`, with a cache of its own there."""
    place.mkdir(parents=True, exist_ok=True)
    cache = environment.pop("METARUN_CACHE", None) or str(place / "cache")
    command = start(*words, cwd=place, cache=Path(cache), warm=WARM, CUDA_VISIBLE_DEVICES="", **environment)
    assert isinstance(command, Command)
    return command


def do(place: Path, *words: str, **environment: str | None) -> tuple[int, str]:
    """Exit code and all output of a command."""
    command = begin(place, *words, **environment)
    try:
        out, error = command.communicate(timeout=300)
    except BaseException:
        strike_group(command, signal.SIGKILL)
        raise
    return command.returncode or 0, out + error


def strike_group(command: Command, signum: int) -> None:
    """Send a signal to the command and all that it started."""
    if command.poll() is None:
        os.killpg(command.pid, signum)


def facts(folder: Path) -> dict[str, Any]:
    """Everything that a finished run found, clocks aside, by file."""

    def strip(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: strip(value) for key, value in node.items() if key not in CLOCKS}
        return [strip(value) for value in node] if isinstance(node, list) else node

    with zipfile.ZipFile(folder / "test_tasks.npz") as scores:
        found = {f"test_tasks.npz {name}": scores.read(name) for name in scores.namelist()}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    results = json.loads((folder / "results.json").read_text())
    return found | {"results.json": strip(results), "metrics.jsonl": strip(lines)}


def compare(expected: dict[str, Any], folder: Path) -> str:
    """`equal`, or in which file the run in `folder` found something else."""
    try:
        found = facts(folder)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        return f"unreadable: {error}"
    return ", ".join(f"{name} differs" for name in expected if found.get(name) != expected[name]) or "equal"


def last_step(folder: Path) -> int:
    """The last outer step that is logged."""
    try:
        return max((json.loads(line)["step"] for line in whole_lines(folder / "metrics.jsonl")), default=0)
    except OSError:
        return 0


def whole_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines(True) if line.endswith("}\n")]


def go_on(place: Path, words: list[str], expected: dict[str, Any], folder: str = "r") -> tuple[str, int]:
    """Go on with a run that was struck, and compare it; returns the outcome, and the outer steps made again."""
    run = place / folder
    made = last_step(run)
    begun = (run / ".hydra" / "config.yaml").exists()
    code, said = do(place, *(["resume", folder] if begun else words))
    if code or "Traceback" in said:
        return f"{'resume' if begun else 'the command again'} ended with {code}: {said[-500:]}", 0
    if litter := [str(path.relative_to(place)) for path in place.rglob("*.part")]:
        return f"left behind: {' '.join(litter)}", 0
    resumed = re.search(r"going on from step (\d+)", said)
    kept = made if "finished already" in said else int(resumed[1]) if resumed else 0
    return compare(expected, run), max(0, made - kept)
