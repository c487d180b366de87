"""Which code made a run."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import pytest

from metarun.run import results


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = subprocess.run(["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def copied(file: Path) -> Any:
    """The module results.py, as it lies in another place."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(Path(results.__file__).read_bytes())
    spec = importlib.util.spec_from_file_location("copied", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Somebody's own repository."""
    git(tmp_path, "init", "-q")
    (tmp_path / "mine.py").write_text("pass\n")
    (tmp_path / ".gitignore").write_text(".venv/\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "mine")
    return tmp_path


def test_an_installed_copy_does_not_take_the_commit_of_the_project_around_it(project: Path) -> None:
    assert copied(project / ".venv" / "lib" / "results.py").read_git_state() is None


def test_a_checkout_tells_its_commit_and_whether_it_was_changed(project: Path) -> None:
    module = copied(project / "metarun" / "results.py")
    git(project, "add", "metarun/results.py")
    git(project, "commit", "-qm", "code")
    (project / "metarun" / "__pycache__").mkdir(exist_ok=True)
    (project / ".gitignore").write_text(".venv/\n__pycache__/\n")
    git(project, "commit", "-qam", "ignore")
    assert module.read_git_state() == {"commit": git(project, "rev-parse", "HEAD"), "dirty": False}
    (project / "mine.py").write_text("changed\n")
    assert module.read_git_state()["dirty"] is True
