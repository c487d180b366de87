from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from metarun.core import objectives
from metarun.core.batches import MixedBatch, as_batch, list_batches
from metarun.core.episodes import iterate_places
from metarun.core.known_source import find_untold
from metarun.core.ranges import PositiveInt
from metarun.core.tasks import Batch, EpisodePlan, Examples, SourceInfo
from metarun.data.counts import join_counts
from metarun.data.device import to_device
from metarun.data.files.decode import Channels
from metarun.data.files.splits import SPLITS
from metarun.data.resize import resize


class Member(Protocol):
    """What a union needs of each of its sources; ImageTasks has it."""

    info: SourceInfo
    classes: dict[str, set[str]]

    def batch(self, split: str, indices: NDArray[np.int64]) -> Batch | MixedBatch: ...

    def fingerprint(self, split: str, n_tasks: int) -> str: ...

    def labels(self, split: str, index: int) -> list[str]: ...


class Union:
    """Several sources as one: tasks come from the sources in turn, with all images scaled to one size.

    With n sources, task i is task i // n of source i % n. So each source is seen equally often, and the test tasks of
    a union are the first test tasks of its sources.

    Args:
        plan: from the runner.
        open_source: from the runner; opens the source that a name of `data=` stands for.
        sources: their names.
        image_size: side of all images in pixels.
        channels: number of channels of all images; gray images are repeated.
        members: settings of a source that are to be other than its own, by its name.
    Raises: ValueError if one source trains on a class that another validates or tests on.
    """

    many_shapes = True

    def __init__(
        self,
        plan: EpisodePlan,
        open_source: Callable[..., Any],
        sources: Sequence[str],
        image_size: PositiveInt,
        channels: Channels,
        members: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    ) -> None:
        if not sources or len(set(sources)) < len(sources):
            raise ValueError(f"data.sources={list(sources)} must be names of sources, each once")
        self.members: dict[str, Member] = {}
        check_members(members, sources, "data.sources")
        for name in sources:
            member = open_member(open_source, name, members)
            if not hasattr(member, "classes"):
                raise ValueError(
                    f"data.sources={list(sources)}: {name} has no classes of images and cannot be in a union"
                )
            self.members[name] = member
        self.plan, self.turns = plan, list(self.members)
        check_apart(self.members, "leave one of the two out of data.sources")
        self.shape = (channels, image_size, image_size)
        normalisations = {repr(m.info.normalisation): m.info.normalisation for m in self.members.values()}
        digest = hashlib.sha256("".join(m.info.split_sha256 for m in self.members.values()).encode())
        self.info = SourceInfo(
            input_shape=self.shape,
            n_way=plan.test.n_way,
            outputs=plan.test.n_way,
            objective=objectives.classification,
            split_sha256=digest.hexdigest(),
            normalisation=next(iter(normalisations.values())) if len(normalisations) == 1 else None,
            facts={
                "classes": {s: sum(len(m.classes[s]) for m in self.members.values()) for s in SPLITS},
                "images": join_counts([m.info.facts["images"] for m in self.members.values()]),
                "trainval": any(m.info.facts["trainval"] for m in self.members.values()),
                "sources": {name: member.info.facts for name, member in self.members.items()},
            },
        )

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Batch | MixedBatch]:
        for places in iterate_places(first, batch_size):
            yield self.batch(split, places)

    def batch(self, split: str, indices: NDArray[np.int64]) -> Batch | MixedBatch:
        """Return the tasks with the numbers `indices` [B] of a split's stream."""
        inner, which = np.divmod(indices, len(self.members))  # number of the task in its source, number of the source
        found, places = [], []
        for number, member in enumerate(self.members.values()):
            if (which == number).any():
                found.append(member.batch(split, inner[which == number]))
                places.append(np.flatnonzero(which == number))
        parts = [self._fit(part) for one in found for part in list_batches(one)]
        order = np.argsort(np.concatenate(places))  # [B]
        if self.plan.shape_of(split).varies:
            return as_batch([parts[place] for place in order])
        rows = to_device(order, parts[0].support.y.device)
        support, query = (
            Examples(torch.cat([e.x for e in side])[rows], torch.cat([e.y for e in side])[rows])
            for side in ([part.support for part in parts], [part.query for part in parts])
        )
        sides = [part.side for part in parts]
        shared = set(sides[0]).intersection(*sides)  # what is known of the tasks of each source
        for name in sorted(shared):
            sizes = {tuple(one[name].shape[1:]) for one in sides}
            if len(sizes) > 1:
                raise ValueError(
                    f"data.sources={list(self.members)} tell {name} of several sizes, "
                    f"{' and '.join(map(str, sorted(sizes)))}, of their tasks: give all of them descriptions of one"
                )
        side = {name: torch.cat([one[name] for one in sides])[rows] for name in shared}
        return Batch(support, query, parts[0].n_way, side)

    def _fit(self, batch: Batch) -> Batch:
        support, query = (Examples(resize(side.x, self.shape), side.y) for side in (batch.support, batch.query))
        return batch._replace(support=support, query=query)

    def labels(self, split: str, index: int) -> list[str]:
        """Return the names of the classes that are labelled 0..N-1 in task number `index`."""
        inner, which = divmod(index, len(self.members))
        name, member = list(self.members.items())[which]
        return [f"{name}: {label}" for label in member.labels(split, inner)]

    def fingerprint(self, split: str, n_tasks: int) -> str:
        """Return a hash of which examples the first tasks hold, made of the hashes of the sources."""
        n = len(self.members)
        counts = [len(range(number, n_tasks, n)) for number in range(n)]
        parts = [m.fingerprint(split, count) for m, count in zip(self.members.values(), counts, strict=True)]
        return hashlib.sha256("".join(parts).encode()).hexdigest()


def check_members(members: Mapping[str, Mapping[str, Any]], names: Iterable[str], where: str) -> None:
    """Raise ValueError if there are settings for a source that is not among the `names`, which are set `where`."""
    if unknown := sorted(members.keys() - set(names)):
        raise ValueError(f"data.members has settings for {unknown[0]}, which is not in {where}")


def open_member(
    open_source: Callable[..., Any], name: str, members: Mapping[str, Mapping[str, Any]], **plan: Any
) -> Any:
    """Open a source with its settings among `members`, if it has some there, and another `plan` if one is given."""
    return open_source(name, values=members[name], **plan) if name in members else open_source(name, **plan)


def check_apart(members: Mapping[str, Member], instead: str) -> None:
    """Raise ValueError, which says what to do `instead`, if one member uses a class in another split than another.

    So it does if that cannot be told, as packed files number the classes of one of two splits of the same classes.
    """
    for name, member in members.items():
        for other, its in members.items():
            if untold := find_untold(*(set().union(*one.classes.values()) for one in (member, its))):
                raise ValueError(
                    f"it is not known whether {name} and {other} share classes: files of {untold[0]} without names of "
                    f"classes were read. Take files with names, or {instead}"
                )
            for one, two in (("train", "val"), ("train", "test"), ("val", "test")):
                shared = sorted(member.classes[one] & its.classes[two])
                if shared and name != other:
                    raise ValueError(
                        f"{name} uses {len(shared)} classes to {one} on that {other} has in {two}, {shared[0]} among "
                        f"them: {instead}"
                    )
