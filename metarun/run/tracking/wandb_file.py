"""The rows in the files that W&B leaves on the disk."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

FILE_HEADER, RECORD_HEADER, BLOCK = 7, 7, 32768
"""Bytes of the headers of a file and of a record, and of a block; records go on in the next block, as in LevelDB."""

WHOLE, LAST = 1, 4
"""Kinds of records that end with their block's part; the others go on."""


def find_last_row(files: Iterable[Path]) -> int:
    """Find W&B's step of the last row of metrics in the files, 0 without one; an unreadable rest is left out."""
    last = 0
    for file in files:
        from google.protobuf.message import DecodeError
        from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made when it is imported

        for content in _read_records(file.read_bytes()):
            record = Record()
            try:
                record.ParseFromString(content)
            except DecodeError:
                break
            named = {name for item in record.history.item for name in (item.key, *item.nested_key)}
            if "step" in named:
                last = max(last, record.history.step.num)
    return last


def _read_records(data: bytes) -> Iterator[bytes]:
    at, pieces = FILE_HEADER, b""
    while at + RECORD_HEADER <= len(data):
        if (left := BLOCK - at % BLOCK) < RECORD_HEADER:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + RECORD_HEADER])
        start = at + RECORD_HEADER
        if not kind or start + length > len(data):  # being written, or cut
            return
        pieces += data[start : start + length]
        at = start + length
        if kind in (WHOLE, LAST):
            yield pieces
            pieces = b""
