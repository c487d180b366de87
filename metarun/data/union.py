from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from metarun.core import objectives
from metarun.core.ranges import PositiveInt
from metarun.core.tasks import Batch, EpisodePlan, Examples, SourceInfo
from metarun.data.device import on_device
from metarun.data.images import SPLITS
from metarun.data.resize import fitted


class Member(Protocol):
    """What a source of a union has to have, as ImageTasks does."""

    info: SourceInfo
    classes: dict[str, set[str]]

    def batch(self, split: str, indices: NDArray[np.int64]) -> Batch: ...

    def fingerprint(self, split: str, n_tasks: int) -> str: ...

    def labels(self, split: str, index: int) -> list[str]: ...


class Union:
    """Several sources as one: every task is of one of them, in turn, scaled to a common size.

    Task i is task i // n of source i % n of the n sources, so that each is seen equally often, and a union's test
    tasks are the first ones of its sources' own.

    Args:
        plan: from the runner.
        open_source: from the runner: the source that a name of `data=` stands for.
        sources: names.
        image_size: side of all images in pixels.
        channels: of all images; gray ones are repeated.
    Raises: ValueError if a class that one source trains on is validated or tested on by another.
    """

    def __init__(
        self,
        plan: EpisodePlan,
        open_source: Callable[[str], Any],
        sources: Sequence[str],
        image_size: PositiveInt,
        channels: int,
    ) -> None:
        if not sources or len(set(sources)) < len(sources):
            raise ValueError(f"data.sources={list(sources)} must be names of sources, each once")
        self.members: dict[str, Member] = {}
        for name in sources:
            member = open_source(name)
            if not hasattr(member, "classes"):
                raise ValueError(
                    f"data.sources={list(sources)}: {name} has no classes of images and cannot be in a union"
                )
            self.members[name] = member
        _check_apart(self.members)
        self.shape = (channels, image_size, image_size)
        made = {repr(member.info.normalisation): member.info.normalisation for member in self.members.values()}
        digest = hashlib.sha256("".join(m.info.split_sha256 for m in self.members.values()).encode())
        self.info = SourceInfo(
            input_shape=self.shape,
            n_way=plan.test.n_way,
            outputs=plan.test.n_way,
            objective=objectives.classification,
            split_sha256=digest.hexdigest(),
            normalisation=next(iter(made.values())) if len(made) == 1 else None,
            facts={
                "classes": {s: sum(len(m.classes[s]) for m in self.members.values()) for s in SPLITS},
                "trainval": any(m.info.facts["trainval"] for m in self.members.values()),
                "sources": {name: member.info.facts for name, member in self.members.items()},
            },
        )

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Batch]:
        while True:
            yield self.batch(split, np.arange(first, first + batch_size))
            first += batch_size

    def batch(self, split: str, indices: NDArray[np.int64]) -> Batch:
        """The tasks number `indices` of a split's stream."""
        inner, which = np.divmod(indices, len(self.members))
        parts, places = [], []
        for number, member in enumerate(self.members.values()):
            if (which == number).any():
                parts.append(member.batch(split, inner[which == number]))
                places.append(np.flatnonzero(which == number))
        order = on_device(np.argsort(np.concatenate(places)), parts[0].support.y.device)
        sides = [
            Examples(torch.cat([fitted(e.x, self.shape) for e in side])[order], torch.cat([e.y for e in side])[order])
            for side in ([part.support for part in parts], [part.query for part in parts])
        ]
        return Batch(sides[0], sides[1], parts[0].n_way)

    def labels(self, split: str, index: int) -> list[str]:
        """The classes that labels 0..N-1 of task number `index` stand for."""
        inner, which = divmod(index, len(self.members))
        name, member = list(self.members.items())[which]
        return [f"{name}: {label}" for label in member.labels(split, inner)]

    def fingerprint(self, split: str, n_tasks: int) -> str:
        """A hash of which examples the first tasks hold, made of those of the sources' first tasks."""
        n = len(self.members)
        counts = [len(range(number, n_tasks, n)) for number in range(n)]
        parts = [m.fingerprint(split, count) for m, count in zip(self.members.values(), counts, strict=True)]
        return hashlib.sha256("".join(parts).encode()).hexdigest()


def _check_apart(members: dict[str, Member]) -> None:
    for name, member in members.items():
        for other, its in members.items():
            for one, two in (("train", "val"), ("train", "test"), ("val", "test")):
                shared = sorted(member.classes[one] & its.classes[two])
                if shared and name != other:
                    raise ValueError(
                        f"{name} uses {len(shared)} classes to {one} on that {other} has in {two}, {shared[0]} among "
                        "them: leave one of the two out of data.sources"
                    )
