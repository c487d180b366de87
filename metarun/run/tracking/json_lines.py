"""metrics.jsonl: the numbers of a run, a line for each log."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from metarun.core.results_file import read_metrics_line
from metarun.core.whole import name_what_fails

log = logging.getLogger(__name__)


def read_lines(path: Path, keep_bytes: int) -> list[dict[str, Any]]:
    """Read the lines that a resumed run keeps, those within the first `keep_bytes`; none without a file."""
    try:
        kept = path.read_bytes()[:keep_bytes]
    except FileNotFoundError:
        return []
    return [found for line in kept.splitlines() if (found := read_metrics_line(line))]


class JsonLines:
    """Writes metrics.jsonl, an object in each line. A resumed run first cuts the file to `keep_bytes`.

    A shorter file has lost lines: the run goes on after the last whole line, and says so. It also says so if the kept
    bytes do not have the hash `sha256`, which older checkpoints lack.
    """

    def __init__(self, path: Path, keep_bytes: int, sha256: str = "") -> None:
        self.path = path
        with name_what_fails(path):
            self.file = open(path, "a+b")  # noqa: SIM115
            if (length := self.file.seek(0, os.SEEK_END)) < keep_bytes:
                log.warning(
                    "%s has %d bytes, and had %d at the checkpoint: the lines between are missing from tables and "
                    "curves, and nothing else is lost",
                    path, length, keep_bytes,
                )  # fmt: skip
                self.file.seek(0)
                keep_bytes, sha256 = self.file.read().rfind(b"\n") + 1, ""  # after the last whole line
            self.file.truncate(keep_bytes)
            self.file.seek(0)
            self.hash = hashlib.sha256(self.file.read())
            if sha256 not in ("", self.hash.hexdigest()):
                log.warning(
                    "%s was changed after the checkpoint: numbers in its tables and curves may be wrong, and nothing "
                    "else is", path,
                )  # fmt: skip

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        with name_what_fails(self.path):
            line = json.dumps({"step": step, "split": split, **metrics}).encode() + b"\n"
            self.file.write(line)
            self.file.flush()
            self.hash.update(line)

    def flush(self) -> tuple[int, str]:
        """Flush everything to the disk. Returns: the file's length in bytes, and the hash of its content."""
        with name_what_fails(self.path):
            os.fsync(self.file.fileno())
            return self.file.seek(0, os.SEEK_END), self.hash.hexdigest()

    def close(self) -> None:
        with name_what_fails(self.path):
            self.file.close()
