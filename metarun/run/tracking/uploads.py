"""What W&B does not have yet, and the commands that upload it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from metarun.core.command import quote

TITLE = "not uploaded to W&B yet:"

SETTLING = 10.0
"""Seconds in which W&B may still close a file of a run that is over and uploaded."""

ONLINE_TOO = " --no-skip-online"
"""What `wandb sync` needs to take runs that were to be uploaded while they ran."""


def list_uploads(states: Mapping[Path, str]) -> list[str]:
    """List commands that upload what W&B does not have yet, as far as the files here tell.

    A sweep's comparison lies in the folder of its runs. Files of a run that goes on are left to it.

    Args:
        states: the folder of each run, with its state.
    """
    waiting: dict[tuple[str, Path], list[Path]] = {}
    again: list[Path] = []
    for folder in _list_tracked(states):
        for file in sorted(folder.glob("wandb/*run-*/*.wandb")):
            synced = file.with_name(f"{file.name}.synced")  # made by `wandb sync`, and by us after an upload
            if not synced.exists():
                kind = "offline-run" if file.parent.name.startswith("offline-run-") else "run"
                folders = waiting.setdefault((kind, folder.parent), [])
                folders += [folder] if folder not in folders else []
            elif synced.stat().st_mtime + SETTLING < file.stat().st_mtime:  # uploaded while the run went on
                again.append(file.parent)
    commands = []
    for (kind, parent), folders in waiting.items():
        where = quote(folders[0]) if len(folders) == 1 else f"{quote(parent)}/*"
        commands.append(f"wandb sync{ONLINE_TOO if kind == 'run' else ''} {where}/wandb/{kind}-*")
    commands += [f"wandb sync{ONLINE_TOO} --no-skip-synced {quote(folder)}" for folder in again]
    return commands


def _list_tracked(states: Mapping[Path, str]) -> list[Path]:
    """List the folders that may have files of W&B's: those of runs, and of sweeps."""
    folders = [folder for folder, state in states.items() if state != "running"]
    return [*dict.fromkeys(folder.parent for folder in states if folder.parent not in folders), *folders]
