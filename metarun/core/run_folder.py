"""The folder of a run: what its files are called, and what is in results.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarun.core.errors import ConfigError
from metarun.core.whole import write_json


@dataclass(frozen=True)
class RunFolder:
    """Where the files of the run in `path` lie. Hydra writes its own under .hydra before the run begins."""

    path: Path

    @property
    def settings(self) -> Path:
        """All settings, as Hydra composed them; what makes a folder the folder of a run."""
        return self.path / ".hydra" / "config.yaml"

    @property
    def hydra(self) -> Path:
        """Hydra's own settings: what was chosen and typed."""
        return self.path / ".hydra" / "hydra.yaml"

    @property
    def overrides(self) -> Path:
        """What was typed, as a list."""
        return self.path / ".hydra" / "overrides.yaml"

    @property
    def lock(self) -> Path:
        """Held by the process that runs it."""
        return self.path / ".hydra" / "lock"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    @property
    def metrics(self) -> Path:
        """A line of JSON per log."""
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
        """The checkpoint that a resumed run goes on from."""
        return self.checkpoints / "last.pt"

    @property
    def best(self) -> Path:
        """The best checkpoint by validation, which is tested."""
        return self.checkpoints / "best.pt"

    @property
    def evaluations(self) -> Path:
        """A folder of what later tests found."""
        return self.path / "evals"

    def traces(self) -> list[Path]:
        """What a run has left, of all that it writes once it has begun."""
        return [path for path in (self.metrics, self.last, self.best, self.results) if path.exists()]

    def has_settings(self) -> bool:
        return self.settings.is_file()

    def check(self) -> None:
        """Raises: ConfigError if this is not the folder of a run."""
        if not self.has_settings():
            raise ConfigError(f"{self.path} is not the folder of a run: it has no .hydra/config.yaml")

    def read_results(self) -> dict[str, Any]:
        """What results.json says; empty where there is none, or none that can be read."""
        try:
            found = json.loads(self.results.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write_results(self, results: dict[str, Any]) -> None:
        write_json(self.results, results)
