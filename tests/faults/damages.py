"""A file of a run is cut, emptied, changed in a bit or lost: commands say so, or say what they always say."""

from __future__ import annotations

import random
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from kills import RUN
from small_run import Trial, compare, do, facts

Damage = Callable[[bytes, random.Random], bytes | None]


def cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(1, max(2, len(content)))]


def empty(content: bytes, draw: random.Random) -> bytes:
    return b""


def flip(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def lose(content: bytes, draw: random.Random) -> None:
    return None


DAMAGES: dict[str, Damage] = {"cut": cut, "emptied": empty, "changed in a bit": flip, "missing": lose}

COMMANDS = {
    "resume": ["resume", "r"],
    "eval": ["eval", "r", "data.k_shot=1,2", "--again"],
    "show": ["show", "r"],
    "list": ["list", "."],
    "compare": ["compare", ".", "--by", "seed", "--over", "algo"],
}
"""The first is tried on a run that was killed, the others on one that is finished; a sound run lies beside it."""

CHANGING = re.compile(r"\d+ (s|min|h|d)\b|\d+(\.\d)? ?(B|kB|MB)\b|\d+:\d\d|[\d.,]+ tasks/s|─+|^  [\w./]+ .*", re.M)
"""What differs between two readings of a run: ages, sizes, times, and the table of its files."""


@cache
def make_runs(root: Path) -> dict[str, Any]:
    """Two finished runs, `r` with tests by `eval`, and `other`; `killed` with both; what each command says of them."""
    place = root / "sound"
    for name, seed in (("r", 0), ("other", 1)):
        code, said = do(place, *RUN[:-1], f"seed={seed}", f"hydra.run.dir={name}")
        assert code == 0, said
    assert do(place, "eval", "r", "data.k_shot=1,2")[0] == 0
    shutil.copytree(place, root / "killed", ignore=lambda folder, names: {"r"} & {*names})
    do(root / "killed", *RUN[:-1], "seed=0", "hydra.run.dir=r", STRIKE="kill 3 os.rename r/checkpoints/last.pt")
    expected = {name: clean(say(place, root / "said", words)[1]) for name, words in COMMANDS.items()}
    return expected | {"facts": facts(place / "r")}


def list_files(root: Path, command: str) -> list[str]:
    """The files of the damaged run, and of the cache, from the folder of both on."""
    place = root / ("killed" if command == "resume" else "sound")
    make_runs(root)
    found = [path for folder in ("r", "cache") for path in (place / folder).rglob("*") if path.is_file()]
    names = sorted(str(path.relative_to(place)) for path in found)
    return [name for name in names if not name.endswith((".lock", "/lock", ".part"))]


def damage_each(
    root: Path,
    files: Sequence[str] | None = None,
    commands: Sequence[str] = tuple(COMMANDS),
    seeds: Sequence[int] = (0,),
) -> Iterator[Trial]:
    """Damage each file in each way, and do each command."""
    make_runs(root)
    for command in commands:
        for name in list_files(root, command):
            if files is not None and not any(name.endswith(file) for file in files):
                continue
            for kind, damage in DAMAGES.items():
                for seed in seeds if damage in (cut, flip) else seeds[:1]:
                    yield damage_one(root, command, name, kind, seed)


def damage_one(root: Path, command: str, name: str, kind: str, seed: int) -> Trial:
    """Damage a file of a copy of the runs, and do a command there."""
    known, draw = make_runs(root), random.Random(zlib.crc32(f"{name}{kind}{seed}".encode()))

    def spoil(place: Path) -> None:
        path = place / name
        content = DAMAGES[kind](path.read_bytes(), draw)
        path.unlink()
        if content is not None:
            path.write_bytes(content)

    fault = f"a file of a run {kind}, then {command}"
    place = root / "damaged"
    code, said = say(root / ("killed" if command == "resume" else "sound"), place, COMMANDS[command], spoil)
    return Trial(fault, f"{name} {kind} {seed}", _judge(place, command, name, code, said, known))


def _judge(place: Path, command: str, name: str, code: int, said: str, known: dict[str, Any]) -> str:
    if "Traceback" in said or code not in (0, 1, 2):
        return f"ended with {code}: {said[-900:]}"
    told = Path(name).name in said.replace("\n", "")
    if code == 0 and command == "resume":
        found = compare(known["facts"], place / "r")
        return found if found == "equal" else "said" if told else f"{found}, and nothing is said: {said[-600:]}"
    if code == 0 and clean(said) == known[command]:
        return "equal"
    if (place / name).exists() is False and ("evals" in name or "died" in said):
        return "said"  # a test whose file is gone was never made, as far as anybody can tell
    if name == "r/results.json" and not (place / name).exists() and command == "compare":
        return "said"  # an unfinished run is not compared
    return "said" if told else f"code {code}, and {Path(name).name} is not named: {said[-900:]}"


def say(
    source: Path, place: Path, words: list[str], spoil: Callable[[Path], None] = lambda place: None
) -> tuple[int, str]:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(source, place)
    spoil(place)
    return do(place, *words)


def clean(said: str) -> str:
    return re.sub("(~ )+", "~ ", " ".join(CHANGING.sub("~", said).split()))
