"""metrics.jsonl: the numbers of a run, a line each."""

from __future__ import annotations

import json
import os
from pathlib import Path


class JsonLines:
    """metrics.jsonl: one object a line, cut back to `keep_bytes` where a resumed run goes on."""

    def __init__(self, path: Path, keep_bytes: int) -> None:
        self.file = open(path, "ab")  # noqa: SIM115
        self.file.truncate(keep_bytes)

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        self.file.write(json.dumps({"step": step, "split": split, **metrics}).encode() + b"\n")
        self.file.flush()

    def flush(self) -> int:
        """Bring everything to disk; returns the file's length in bytes."""
        os.fsync(self.file.fileno())
        return self.file.seek(0, os.SEEK_END)

    def close(self) -> None:
        self.file.close()
