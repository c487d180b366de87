"""Commands of metarun in the test's own process, where the process is not what is tested."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock
from hydra.core.global_hydra import GlobalHydra

Ended = tuple[int, str, str]
"""Exit code, standard output and standard error."""

Use = Callable[..., Ended]


@contextmanager
def using(capsys: pytest.CaptureFixture[str], cache: Path, columns: int) -> Iterator[Use]:
    """Yield what ends a command with these words, for a screen so wide. Afterwards the environment is as it was."""
    from metarun.cli import command

    def used(*words: str | Path) -> Ended:
        GlobalHydra.instance().clear()
        capsys.readouterr()
        code = command([str(word) for word in words])
        out, error = capsys.readouterr()
        return code, out, error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["metarun"])
        patch.setenv("COLUMNS", str(columns))
        patch.setenv("METARUN_CACHE", str(cache))
        for name in ("METARUN_SWEEP", "METARUN_JOBS"):  # which the command sets
            patch.setenv(name, "")
            os.environ.pop(name)
        yield used
    GlobalHydra.instance().clear()


def finish_runs(folder: Path, typed: Mapping[str, Sequence[str]], cache: Path) -> Path:
    """Make a finished run of each name's words, in a folder of that name; returns the folder of them all.

    Workers of pytest that ask for the same ones share the work: the first makes them beside the cache, each has a copy.
    """
    made = cache.parent / hashlib.sha256(repr(typed).encode()).hexdigest()
    with FileLock(f"{made}.lock"):
        if not made.exists():
            half = made.with_suffix(".half")
            shutil.rmtree(half, ignore_errors=True)  # of one that failed
            _run_each(half, typed, cache)
            half.rename(made)
    return shutil.copytree(made, folder, dirs_exist_ok=True)


def _run_each(folder: Path, typed: Mapping[str, Sequence[str]], cache: Path) -> None:
    from metarun.cli import command

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["metarun"])
        for name, words in typed.items():
            GlobalHydra.instance().clear()
            assert command([*words, f"paths.cache={cache}", f"hydra.run.dir={folder / name}"]) == 0
    GlobalHydra.instance().clear()
