from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
import torch

from metarun.core.episodes import EpisodeIndices, Floats, Ints, iterate_places
from metarun.core.ranges import CountsWith, FilePath
from metarun.core.tasks import Batch, EpisodePlan, Examples
from metarun.data.device import to_device
from metarun.data.files.class_names import NAMES, tokenize_names
from metarun.data.files.descriptions import check_described, find_descriptions
from metarun.data.open_images import Members, open_images


@runtime_checkable
class DescribesClasses(Protocol):
    """A source of images that knows its classes by more than images."""

    def describe_classes(self) -> Mapping[str, Floats]:
        """Return a vector [D] for each class by name, or several [P, D], as many for each."""
        ...


class Described:
    """Images to be told by descriptions of their classes, which are the support set of a task.

    A description is a vector, such as attributes or the embedding of a text; or P of them, such as one for each stroke.
    Each number is standardised over the training classes. Of turned images every vector says by how many quarter turns,
    in four more numbers.

    Args:
        plan, device: from the runner; `k_shot` has no meaning.
        open_source: from the runner; opens the source that a name of `data=` stands for.
        images: name of the source of the images.
        descriptions: file with a vector for each class, see metarun/data/files/descriptions.py; None: the source's own,
            as glyphs knows its strokes and CUB its attributes; `names`: the names of the classes as CLIP's tokens.
        shuffled: give each class the description of another of its split, a control that can do no better than chance.
        templates: of `names`, texts with a {} where the name comes.
        members: settings of the source of the images that are to be other than its own, by its name.
    Raises: ValueError if the source has no images, or a class no description.
    """

    kinds = ("described",)

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        open_source: Callable[..., Any],
        images: str,
        descriptions: FilePath | None,
        shuffled: bool,
        templates: Annotated[Sequence[str], CountsWith("descriptions", (NAMES,))] = ("a photo of a {}.",),
        members: Members = MappingProxyType({}),
    ) -> None:
        bare = replace(plan, train=replace(plan.train, k_shot=0), test=replace(plan.test, k_shot=0))
        source = open_images(open_source, images, members, "glyphs", plan=bare)
        split = source.take_apart()[1]
        every_class = [name for names in split.values() for name in names]
        if descriptions == NAMES:
            known: Mapping[str, Floats] = tokenize_names(every_class, templates)
        elif descriptions:
            known = find_descriptions(descriptions, every_class, images)
        elif isinstance(source, DescribesClasses):
            known = source.describe_classes()
        else:
            raise ValueError(f"{images} has no descriptions of its own: set data.descriptions to a file of them")
        self.source, self.device, self.labels = source, device, source.labels
        check_described(known, every_class, f"classes of {images} have no description")
        every = {
            s: np.array([np.atleast_2d(known[name]) for name in names], np.float64) for s, names in split.items()
        }  # [classes, P, D]
        mean, std = every["train"].mean((0, 1)), every["train"].std((0, 1))
        if descriptions == NAMES:
            mean, std = np.zeros_like(mean), np.ones_like(std)
        std = np.where(std > 0, std, 1)
        self.vectors = {s: (own - mean) / std for s, own in every.items()}
        if shuffled:
            self.vectors = {s: _shuffle(own) for s, own in self.vectors.items()}
        self.turned = source.rotation != "none"
        digest = hashlib.sha256(b"".join(own.tobytes() for own in every.values())).hexdigest()
        self.info = replace(
            source.info,
            support_shape=(len(mean) + 4 * self.turned,),
            support_scale=(mean.tolist(), std.tolist()),
            facts=source.info.facts | {"descriptions_sha256": digest, "shuffled": shuffled},
        )

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Batch]:
        for places in iterate_places(first, batch_size):
            yield self.batch(split, places)

    def batch(self, split: str, indices: Ints) -> Batch:
        """Return the tasks with the numbers `indices` [B] of a split's stream; support.x [B, N P, D]."""
        [(drawn, n_way)] = self.source.draw_episodes(split, indices)
        labels = np.repeat(np.arange(n_way), self.vectors[split].shape[1])
        y = np.broadcast_to(labels, (len(indices), len(labels))).copy()
        x = to_device(self._describe(split, drawn), self.device, torch.get_default_dtype())
        images = self.source.batch(split, indices)
        assert isinstance(images, Batch)  # of one shape
        return Batch(Examples(x, to_device(y, self.device)), images.query, n_way)

    def fingerprint(self, split: str, n_tasks: int) -> str:
        fingerprint: str = self.source.fingerprint(split, n_tasks)
        return fingerprint

    def _describe(self, split: str, drawn: EpisodeIndices) -> Floats:
        """Return the descriptions of the drawn classes, class by class [B, N P, D]."""
        turn, base = np.divmod(drawn.classes, len(self.vectors[split]))
        if self.source.rotation == "random":
            turn = drawn.rotation
        vectors = self.vectors[split][base]  # [B, N, P, D]
        if self.turned:
            turns = np.broadcast_to(np.eye(4)[turn][:, :, None], (*vectors.shape[:3], 4))
            vectors = np.concatenate([vectors, turns], -1)
        flat: Floats = vectors.reshape(len(vectors), -1, vectors.shape[-1])
        return flat


def _shuffle(vectors: Floats) -> Floats:
    """Give each row the place of another one: a single cycle through all rows, in random order."""
    order = np.random.default_rng(0).permutation(len(vectors))
    moved = np.empty_like(vectors)
    moved[order] = vectors[np.roll(order, 1)]
    return moved
