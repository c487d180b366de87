"""metrics.jsonl: the numbers of a run, a line for each log."""

from __future__ import annotations

import json
import os
from pathlib import Path


class JsonLines:
    """Writes metrics.jsonl, an object in each line. A resumed run first cuts the file to `keep_bytes`."""

    def __init__(self, path: Path, keep_bytes: int) -> None:
        self.file = open(path, "ab")  # noqa: SIM115
        self.file.truncate(keep_bytes)

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        self.file.write(json.dumps({"step": step, "split": split, **metrics}).encode() + b"\n")
        self.file.flush()

    def flush(self) -> int:
        """Flush everything to the disk. Returns: the file's length in bytes."""
        os.fsync(self.file.fileno())
        return self.file.seek(0, os.SEEK_END)

    def close(self) -> None:
        self.file.close()
