"""What numbers and pictures of a run are sent to, and what it is told of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from metarun.core.scores import Directions


@dataclass(frozen=True)
class RunInfo:
    """What a sink is told of a run.

    Attributes:
        name: what it is, in one word.
        group: a name that runs which belong together share.
        kind: `train`, or `comparison` of a sweep's runs.
        tags: words to find it by.
        config: the resolved settings by dotted key.
        folder: the run's folder.
        id: under which the sink knows it already, None for a new one.
        best: the scores of its best validation so far, where it goes on.
        directions: which way scores of the method's own are better.
    """

    name: str
    group: str
    kind: str
    tags: Sequence[str]
    config: Mapping[str, Any]
    folder: Path
    id: str | None = None
    best: Mapping[str, float] = field(default_factory=dict)
    directions: Directions = field(default_factory=dict)


class Sink(Protocol):
    """Something that numbers are sent to; `finish` is called however the run ends.

    `show` is handed a file for people, a picture (.png), a page (.html) or a table (.csv); it takes those that it has
    a place for, none where `shows` is false.

    Attributes:
        id: under which it knows the run; the run goes on under it when it is resumed.
        notes: lines for the person to read at the end.
    """

    shows: bool
    id: str | None
    notes: Sequence[str]

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None: ...

    def show(self, name: str, file: Path) -> None: ...

    def finish(self, results: dict[str, Any], exit_code: int) -> None: ...


class NoSink:
    """`logger=none`."""

    shows = False
    id: str | None = None
    notes: Sequence[str] = ()

    def __init__(self, info: RunInfo) -> None:
        pass

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        pass

    def show(self, name: str, file: Path) -> None:
        pass

    def finish(self, results: dict[str, Any], exit_code: int) -> None:
        pass
