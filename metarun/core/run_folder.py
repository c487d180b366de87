"""The folder of a run: the names of its files, and results.json."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarun.core.command import join
from metarun.core.errors import ConfigError
from metarun.core.results_file import read_results_file, seal
from metarun.core.whole import UNFINISHED, find_change, hash_file, write_json

SUMS = "files_sha256"
"""Field of results.json with the hashes of the files that belong to them; older results have none."""

SHIPPED = ("metarun.", "torch.nn.", "torch.optim.", "torchvision.models.")
"""Where the classes are that the settings of any run may name; settings/roles.py checks what they are."""


INNER_FOLDERS = frozenset({"checkpoints", "wandb", "tensorboard", "evals", "export", "replays"})
"""Folders inside a run's folder, which contain no other run."""


@dataclass(frozen=True)
class RunFolder:
    """The paths of the files of the run in `path`. Hydra writes its files under .hydra before the run begins."""

    path: Path

    @property
    def settings(self) -> Path:
        """All settings, as Hydra composed them. Every folder of a run has this file."""
        return self.path / ".hydra" / "config.yaml"

    @property
    def hydra(self) -> Path:
        """Hydra's own settings, with the choices and the overrides of the command line."""
        return self.path / ".hydra" / "hydra.yaml"

    @property
    def overrides(self) -> Path:
        """The overrides of the command line, as a list."""
        return self.path / ".hydra" / "overrides.yaml"

    @property
    def lock(self) -> Path:
        """A lock that the process of the run holds."""
        return self.path / ".hydra" / "lock"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    @property
    def metrics(self) -> Path:
        """A line of JSON for each log."""
        return self.path / "metrics.jsonl"

    @property
    def test_tasks(self) -> Path:
        """Index and scores of every test task."""
        return self.path / "test_tasks.npz"

    @property
    def log(self) -> Path:
        return self.path / "run.log"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        """The checkpoint from which a resumed run goes on."""
        return self.checkpoints / "last.pt"

    @property
    def previous(self) -> Path:
        """The last checkpoint but one, for a resumed run whose last one is damaged."""
        return self.checkpoints / "previous.pt"

    @property
    def best(self) -> Path:
        """The best checkpoint by validation, which is the one tested."""
        return self.checkpoints / "best.pt"

    @property
    def evaluations(self) -> Path:
        """A folder with the results of later tests."""
        return self.path / "evals"

    @property
    def calibration(self) -> Path:
        """The temperature of the probabilities of `metarun predict`, for each BatchNorm mode."""
        return self.path / "calibration.json"

    @property
    def export(self) -> Path:
        """A folder with the files of `metarun export`."""
        return self.path / "export"

    @property
    def profile(self) -> Path:
        """Where the time went, of a run with inspect=profile."""
        return self.path / "profile.json"

    @property
    def replays(self) -> Path:
        """A folder with tasks that `metarun replay` wrote."""
        return self.path / "replays"

    def list_traces(self) -> list[Path]:
        """List the existing files of those that a run writes after it has begun."""
        return [path for path in (self.metrics, self.last, self.previous, self.best, self.results) if path.exists()]

    def list_unfinished(self) -> list[Path]:
        """List files that were being written when a process of the run was killed, or will be by one that lives."""
        return [
            path for folder in (self.path, self.settings.parent, self.checkpoints) for path in folder.glob(UNFINISHED)
        ]

    def has_settings(self) -> bool:
        return self.settings.is_file()

    def has_checkpoint(self) -> bool:
        return self.last.exists() or self.previous.exists()

    def check(self) -> None:
        """Raise ConfigError if this is not the folder of a run."""
        if not self.has_settings():
            missing = f"{self.path} is not the folder of a run: it has no .hydra/config.yaml"
            raise ConfigError(self.find_irregular() or missing)

    def find_irregular(self) -> str | None:
        """Describe what stands where a file of the run should and is none, such as a folder or a pipe, if anything."""
        files = (
            self.settings, self.hydra, self.overrides, self.lock, self.results, self.metrics, self.test_tasks, self.log,
            self.last, self.previous, self.best, self.calibration,
        )  # fmt: skip
        for path in files:
            if os.path.lexists(path) and not path.is_file():
                return f"{path} is no file that can be read: take it away, or put the file itself there"
        return None

    def check_links(self) -> None:
        """Raise ConfigError if something that a run writes here is a link to a place outside."""
        inside = self.path.resolve()
        folders = [self.path, self.settings.parent, self.checkpoints, self.evaluations]
        for path in (path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())):
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise ConfigError(
                    f"{path} is a link to {path.resolve()}, outside the run's folder, where nothing is to be "
                    "written: put the file itself there, or take the link away"
                )

    def make_command(self, word: str) -> str:
        """Make `metarun WORD RUN`, to be pasted; with --trust if the run's settings name code of the user's own."""
        try:
            targets = re.findall(r"^ *_target_: *(\S+)", self.settings.read_text(), re.M)
        except (OSError, UnicodeDecodeError):
            targets = []
        trust = [] if all(target.startswith(SHIPPED) for target in targets) else ["--trust"]
        return join(["metarun", word, *trust, self.path])

    def read_results(self) -> dict[str, Any]:
        """Read results.json; empty if it is missing, unreadable or malformed."""
        return read_results_file(self.results)[0]

    def write_results(self, results: dict[str, Any]) -> None:
        """Write results.json, sealed, with the hashes of the files that belong to it. Raises: CannotWrite."""
        found = {
            str(path.relative_to(self.path)): hash_file(path) for path in (self.metrics, self.test_tasks, self.best)
        }
        write_json(self.results, seal(results | {SUMS: {name: digest for name, digest in found.items() if digest}}))

    def find_change(self, path: Path, results: Mapping[str, Any]) -> str | None:
        """Describe that a file of the run is not the one that its `results` were written with, if so."""
        return find_change(path, (results.get(SUMS) or {}).get(str(path.relative_to(self.path))))


def find_owner(path: Path) -> Path | None:
    """Find the run whose own file `path` is, or would be; None if it is nobody's."""
    path = path.resolve()
    for parent in path.parents:
        files = RunFolder(parent)
        if not files.has_settings():
            continue
        top = path.relative_to(parent).parts[0]
        own = files.results, files.metrics, files.test_tasks, files.log, files.calibration, files.profile
        if top == ".hydra" or top in INNER_FOLDERS or path in own:
            return parent
    return None
