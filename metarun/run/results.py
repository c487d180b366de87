"""The code of a run: its commit, and the versions of the packages that its numbers depend on."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

VERSIONED_PACKAGES = ("torch", "torchvision", "learn2learn", "hydra-core", "numpy", "wandb")


def read_versions() -> dict[str, str]:
    """Read the versions of Python, metarun and the packages that its numbers depend on.

    The version of metarun is `unknown` if it is not installed.
    """
    found = {"python": platform.python_version(), "metarun": "unknown"}
    for package in ("metarun", *VERSIONED_PACKAGES):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def read_git_state() -> dict[str, Any] | None:
    """Read commit and cleanness of the checkout that the program runs from; None for an installed copy."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", __file__)  # fails for a repository around an installed copy
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
