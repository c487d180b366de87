"""Facts around a run: which code, and which versions of what its numbers depend on."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "learn2learn", "hydra-core", "numpy", "wandb")


def read_versions() -> dict[str, str]:
    """Versions of Python, metarun and what its numbers depend on; metarun's is unknown where it is not installed."""
    found = {"python": platform.python_version(), "metarun": "unknown"}
    for package in ("metarun", *PACKAGES):
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
