"""Sinks: receivers of a run's numbers and pictures, and the facts of the run that they get."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from metarun.core.scores import Directions


@dataclass(frozen=True)
class RunInfo:
    """Facts of a run for its sink.

    Attributes:
        name: the run's name, in one word.
        group: the name of its group; runs of a sweep share it.
        kind: `train`, or `comparison` of a sweep's runs.
        tags: words to find it by.
        notes: a sentence about it, if it has one.
        config: the resolved settings by dotted key.
        folder: the run's folder.
        id: the sink's id of the run, None for a new run.
        best: the scores of its best validation so far, if the run is resumed.
        directions: directions of the method's own scores.
        several: whether it is one of several runs of a command.
        logged: the lines of metrics.jsonl that a resumed run keeps, which the sink was told before.
    """

    name: str
    group: str
    kind: str
    tags: Sequence[str]
    config: Mapping[str, Any]
    folder: Path
    notes: str | None = None
    id: str | None = None
    best: Mapping[str, float] = field(default_factory=dict)
    directions: Directions = field(default_factory=dict)
    several: bool = False
    logged: Sequence[Mapping[str, Any]] = ()

    def replay(self, log: Callable[[int, str, dict[str, float]], None]) -> None:
        """Tell a sink's `log` again what it was told before a resumed run's checkpoint."""
        for line in self.logged:
            metrics = {name: value for name, value in line.items() if name not in ("step", "split")}
            log(line["step"], line["split"], metrics)


class Sink(Protocol):
    """A receiver of numbers. The run calls `finish` however it ends.

    `show` gets a file for people: a picture (.png), a page (.html) or a table (.csv). The sink ignores kinds of files
    that it has no place for; it gets none if `shows` is false.

    Attributes, which a sink of one's own may leave out:
        shows: whether it takes files.
        id: the sink's id of the run; a resumed run keeps it.
        notes: lines for the user at the end.
    """

    @property
    def shows(self) -> bool: ...

    @property
    def id(self) -> str | None: ...

    @property
    def notes(self) -> Sequence[str]: ...

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None: ...

    def show(self, name: str, file: Path) -> None: ...

    def finish(self, results: Mapping[str, Any], exit_code: int) -> None: ...


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

    def finish(self, results: Mapping[str, Any], exit_code: int) -> None:
        pass
