from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, Protocol

from torch import Tensor

from metarun.core.ranges import PositiveInt
from metarun.core.tasks import Batch, EpisodePlan, Examples, ExampleSource, Pairs
from metarun.data.resize import resize
from metarun.data.union import Member, check_apart, check_members, open_member


class Domain(Member, ExampleSource, Protocol):
    """What a domain has to be: a source of classes of images and of single images; ImageTasks is."""


class Domains:
    """Two sources of images as two domains: training has labels of the source alone, tests are of the target.

    Training tasks and single training images are the source's, for methods that know nothing of the target; `pairs`
    are labelled images of the source's training classes beside as many of the target's, without their labels.

    Args:
        plan: from the runner.
        open_source: from the runner; opens the source that a name of `data=` stands for.
        source, target: their names.
        image_size: side of all images in pixels.
        channels: number of channels of all images; gray images are repeated.
        validate_on: `source`, so that no label of the target is seen before the tests; or the `target`'s own
            validation classes.
        members: settings of a source that are to be other than its own, by its name.
    Raises: ValueError if one domain trains on a class that the other validates or tests on, or one has no images.
    """

    kinds = ("classification", "domains")

    def __init__(
        self,
        plan: EpisodePlan,
        open_source: Callable[..., Any],
        source: str,
        target: str,
        image_size: PositiveInt,
        channels: Literal[1, 3],
        validate_on: Literal["source", "target"],
        members: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    ) -> None:
        names = {"source": source, "target": target}
        check_members(members, names.values(), "data.source and data.target")
        self.members: dict[str, Domain] = {}
        for key, name in names.items():
            member = open_member(open_source, name, members)
            if not hasattr(member, "classes") or not hasattr(member, "examples"):
                raise ValueError(f"data.{key}={name} is not a source of images; data.{key}=omniglot is one")
            self.members[key] = member
        check_apart(self.members, "choose other splits of data.source and data.target")
        self.shape = (channels, image_size, image_size)
        self.tested = {"train": "source", "val": validate_on, "test": "target"}
        infos = {key: member.info for key, member in self.members.items()}
        same = infos["source"].normalisation == infos["target"].normalisation
        digest = hashlib.sha256("".join(info.split_sha256 for info in infos.values()).encode())
        self.info = replace(
            infos["source"],
            input_shape=self.shape,
            normalisation=infos["source"].normalisation if same else None,
            split_sha256=digest.hexdigest(),
            facts={
                **infos["source"].facts,
                "domains": {key: {"name": name, **infos[key].facts} for key, name in names.items()},
            },
        )

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Batch]:
        for batch in self.members[self.tested[split]].episodes(split, first, batch_size):
            support, query = (Examples(resize(x, self.shape), y) for x, y in (batch.support, batch.query))
            yield batch._replace(support=support, query=query)

    def examples(self, split: str, first: int, batch_size: int) -> Iterator[Examples]:
        return self._draw("source", split, first, batch_size)

    def pairs(self, split: str, first: int, batch_size: int) -> Iterator[Pairs]:
        both = (self._draw(domain, split, first, batch_size) for domain in ("source", "target"))
        for source, target in zip(*both, strict=True):
            yield Pairs(source, target.x)

    def labels(self, split: str, index: int) -> list[str]:
        """Return the names of the classes that are labelled 0..N-1 in task number `index`."""
        return self.members[self.tested[split]].labels(split, index)

    def fingerprint(self, split: str, n_tasks: int) -> str:
        return self.members[self.tested[split]].fingerprint(split, n_tasks)

    def _draw(self, domain: str, split: str, first: int, batch_size: int) -> Iterator[Examples]:
        for x, y in self.members[domain].examples(split, first, batch_size):
            yield Examples(self._resize(x), y)

    def _resize(self, x: Tensor) -> Tensor:
        return resize(x[None], self.shape)[0]
