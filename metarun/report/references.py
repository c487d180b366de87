"""What people call a run by: its folder, a short id, the end of its folder's name, or `last`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from metarun.core.errors import ConfigError, suggest
from metarun.core.run_folder import INNER_FOLDERS, RunFolder
from metarun.core.whole import find_time

LAST = "last"

OUTPUTS = Path("outputs")
"""Where a run is looked for that is not called by its folder."""

MANY = 5
"""Folders that a message names at most."""


def find_folder(word: str, several: bool = False) -> Path:
    """Find the folder of the run that `word` calls: a path, `last`, an id, or the end of a folder's path.

    Args:
        word: as it was typed. A folder of this name comes before all else.
        several: runs are asked for: the end may be a sweep's, and `last` is the whole sweep of the last run.
    Returns: the folder; a path that is nobody's as it stands, so that whoever opens it says what is missing there.
    Raises: ConfigError if several folders are called so, or there is no last one.
    """
    if not word.strip():
        raise ConfigError(f"{word!r} is the name of no run: type its folder, its id, or {LAST}")
    path = Path(word)
    if path.exists() or path.is_absolute():
        return path
    folders = _list_runs()
    found = _find_called(word, folders, several)
    if not found and len(path.parts) == 1 and folders:
        hint = suggest(word, [*name_shortly(folders).values(), LAST])
        raise ConfigError(f"{word} is not the folder of a run, and no run under {OUTPUTS} is called so{hint}")
    return found or path


def find_run(word: str) -> Path | None:
    """Find the folder of the run that `word` calls, as `find_folder` does; None if no run is called so.

    Raises: ConfigError if several are, or there is no last one.
    """
    path = Path(word)
    found = path if path.exists() else _find_called(word, _list_runs(), False)
    return found.resolve() if found and RunFolder(found).has_settings() else None


def _list_runs() -> list[Path]:
    return list(walk_runs(OUTPUTS)) if OUTPUTS.is_dir() else []


def _find_called(word: str, folders: Sequence[Path], several: bool) -> Path | None:
    """Find which of `folders` the word calls, as `find_folder` has it; None if it calls none."""
    if word == LAST:
        if not folders:
            raise ConfigError(f"there is no last run: there is none under {OUTPUTS}")
        last = max(folders, key=find_start)
        return last.parent if several and _is_job(last) else last
    wanted = word.rstrip("/")
    named = [*folders, *({folder.parent for folder in folders if _is_job(folder)} if several else ())]
    found = [folder for folder in named if str(folder).endswith(wanted)]
    whole = [folder for folder in found if re.search(rf"(^|[/-]){re.escape(wanted)}$", str(folder))]
    found = whole or found
    if len(found) > 1:
        listed = ", ".join(map(str, sorted(found)[:MANY])) + (", ..." if len(found) > MANY else "")
        raise ConfigError(f"{len(found)} runs are called {word}: {listed}. Type more of the end of one's name")
    return found[0] if found else None


def walk_runs(path: Path) -> Iterator[Path]:
    """Yield the folders of runs at or under `path`."""
    for name, folders, files in os.walk(path):
        here = RunFolder(Path(name))
        if "results.json" in files or here.has_settings() or (".hydra" in folders and here.find_irregular()):
            yield here.path
        folders[:] = sorted(inner for inner in folders if inner not in INNER_FOLDERS and inner[0] != ".")


def find_start(folder: Path) -> float:
    """Find when the run in `folder` began, in seconds since 1970: when its settings were written."""
    files = RunFolder(folder)
    return (find_time(files.settings) or find_time(files.results) or 0) / 1e9


def name_shortly(folders: Sequence[Path]) -> dict[Path, str]:
    """Name each folder by the shortest end of its path that no other ends with: whole words, as 70a8 or maml-s0."""
    ends = {folder: _list_ends(folder) for folder in folders}
    counts: dict[str, int] = {}
    for words in ends.values():
        for word in words:
            counts[word] = counts.get(word, 0) + 1
    return {folder: next((word for word in words if counts[word] == 1), words[-1]) for folder, words in ends.items()}


def _list_ends(folder: Path) -> list[str]:
    """List the ends of a path that begin where a word does, the shortest first; a number alone is no name."""
    text = str(folder)
    starts = [match.end() for match in re.finditer(r"[/-]|^", text)]
    ends = [text[start:] for start in reversed(starts)]
    return [end for end in ends if len(end) > 2 and not re.fullmatch(r"[\d.]{1,3}|s\d+", end)] or ends


def _is_job(folder: Path) -> bool:
    """Return whether the run is a job of a sweep, whose folder lies in the sweep's."""
    return folder.parent.parent.name == "sweeps" or (folder.parent / "multirun.yaml").is_file()
