"""results.json and the facts around a run: what ran, on what, with which versions."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "learn2learn", "hydra-core", "numpy", "wandb")


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """Write results.json, whole or not at all."""
    write_json(folder / "results.json", results)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` to `path`, whole or not at all."""
    aside = path.with_name(f"{path.name}.part")
    aside.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(aside, path)


def read_results(folder: Path) -> dict[str, Any] | None:
    """What `write_results` wrote, or None."""
    path = folder / "results.json"
    return json.loads(path.read_text()) if path.exists() else None


def read_versions() -> dict[str, str]:
    """Versions of Python, metarun and what its numbers depend on."""
    found = {"python": platform.python_version(), "metarun": metadata.version("metarun")}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def read_git_state() -> dict[str, Any] | None:
    """Commit and cleanness of the checkout the program runs from; None for an installed copy."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", __file__)  # not some other repository around an installed copy
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
