"""Parquet files of images and labels, as the Hub has them: read a few rows at a time."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from metarun.data.files.image_file import ImageFile
from metarun.data.files.labelled import Labelled, find_part, name_row, read_number
from metarun.data.files.stream import Stream

log = logging.getLogger(__name__)

IMAGE = ("image", "img", "jpg", "png")
LABEL = ("fine_label", "label", "labels", "class", "character", "category", "species", "breed", "target", "variety")
"""What the two columns are called; the first that is there counts."""

NO_LABEL = -1
"""The label of images whose class is kept secret, as the Hub writes it."""

ROWS = 32
"""Rows that are read at a time."""


def read_parquet(file: ImageFile) -> list[Labelled]:
    """Read a parquet file with a column of encoded images and one of labels: names, or numbers of the names it tells.

    Raises: ValueError without pyarrow, or if the file is damaged or has no such columns.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ValueError("reading it needs pyarrow: pip install pyarrow, or uv sync --extra parquet") from error
    assert file.open is not None
    try:
        with file.open() as opened, ParquetFile(opened) as table:
            names = table.schema_arrow.names
            image = next((one for one in IMAGE if one in names), None)
            label = next((one for one in LABEL if one in names), None)
            if image is None or label is None:
                raise ValueError(f"it has no column {' or '.join(IMAGE[:2])}, or none of labels: {', '.join(names)}")
            known = _find_names(table.schema_arrow.metadata or {}, label)
            labels = table.read(columns=[label])[label].to_pylist()
    except (ArrowException, OSError) as error:
        raise ValueError(f"it is no whole parquet file ({error}); get it again") from error
    part = find_part(file.path)
    stream: Stream[Any] = Stream(partial(_iterate_rows, file, image), len(labels))
    told = [row for row, value in enumerate(labels) if value not in (None, NO_LABEL)]
    if len(told) < len(labels):
        log.warning(
            "%d of the %d images of %s have no label and are left out", len(labels) - len(told), len(labels), file.path
        )
    return [
        Labelled(
            part,
            known[labels[row]] if known else str(read_number(labels[row])),
            ImageFile(name_row(file.path, row), partial(_read_bytes, stream, row), None, (file.path, row)),
        )
        for row in told
    ]


def _iterate_rows(file: ImageFile, column: str) -> Iterator[Any]:
    """Yield the images in order. A group of rows may be the whole file: its pages are read one after the other."""
    from pyarrow.parquet import ParquetFile

    assert file.open is not None
    with file.open() as opened, ParquetFile(opened, buffer_size=1 << 20, pre_buffer=False) as table:
        for batch in table.iter_batches(ROWS, columns=[column], use_threads=False):
            yield from batch.column(0)


def _find_names(metadata: Mapping[bytes, bytes], label: str) -> Sequence[str]:
    """Return the class names of the labels 0, 1, ... that Hugging Face's writer stores."""
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    names: Sequence[str] = features.get(label, {}).get("names", [])
    return names


def _read_bytes(stream: Stream[Any], row: int) -> bytes:
    value = stream.get(row).as_py()
    data = value["bytes"] if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise ValueError("its bytes are not in the file")
    return data
