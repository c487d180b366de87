"""Few-shot tasks from classes of images, which are one uint8 tensor in memory or mapped from a file."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from metarun.core import objectives
from metarun.core.batches import MixedBatch, as_batch
from metarun.core.episode_shapes import draw_by_shape, hash_parts
from metarun.core.episodes import (
    Bits,
    EpisodeIndices,
    Ints,
    draw_bits,
    draw_members,
    draw_stream,
    iterate_places,
)
from metarun.core.errors import ConfigError
from metarun.core.ranges import check_choice
from metarun.core.tasks import Batch, EpisodePlan, Examples, SourceInfo, TaskSource
from metarun.data.augment import Look, make_turn_table
from metarun.data.counts import count_images
from metarun.data.device import fits, to_device
from metarun.data.embedded import Embedded
from metarun.data.files.splits import SPLITS, check_split, find_superclasses, hash_split
from metarun.data.views import add_views

Rotation = Literal["none", "class", "train", "random"]
Labels = Literal["shuffled", "fixed"]
PLAIN_LOOK = Look()  # pixels in 0..1 become inputs as they are


@dataclass(frozen=True)
class ImageClasses:
    """Images in the order of their classes: pixels [R, C, H, W] uint8; class c is rows starts[c] to starts[c+1]-1."""

    pixels: Tensor
    starts: Ints
    names: list[str]


class ImageTasks:
    """N-way K-shot classification tasks over disjoint train, val and test classes.

    A meta-batch is one gather from the uint8 tensor; the device turns its pixels into inputs.

    Args:
        data: all images.
        split: class names of each of train, val, test.
        plan: shapes and seeds of the tasks.
        rotation: `none`; `class` makes each rotation by 0, 90, 180 or 270 degrees a class of its own, and `train` does
            so in training only; `random` turns each class of an episode by one of the four.
        device: where tasks are made. The images lie there too if they fit into half of its free memory.
        look: how pixels become inputs.
        trainval: draw training tasks from the classes of train and val; validation then says little.
        labels: `shuffled` gives the classes of each task their labels in random order; `fixed` gives a class the same
            label in all training tasks, which can then be learned by heart (Yin 2020).
        superclass_of: names the superclass of a class, if all classes of a task must share one.
    Raises: ValueError if splits share a class, a split has too few classes, or a class too few images.
    """

    many_shapes, world = True, ""
    """Sources of one world give the same classes the same names. If it is empty, the source is a world of its own."""

    def __init__(
        self,
        data: ImageClasses,
        split: Mapping[str, list[str]],
        plan: EpisodePlan,
        rotation: Rotation,
        device: torch.device,
        look: Look = PLAIN_LOOK,
        trainval: bool = False,
        superclass_of: Callable[[str], str] | None = None,
        labels: Labels = "shuffled",
    ) -> None:
        check_choice("data.rotation", rotation, Rotation)
        if rotation != "none" and data.pixels.shape[-1] != data.pixels.shape[-2]:
            raise ValueError(f"data.rotation={rotation} needs square images, not {tuple(data.pixels.shape[-2:])}")
        if len(set(data.names)) < len(data.names):
            raise ValueError(f"the classes {data.names} are not all different")
        if labels == "fixed" and superclass_of:
            raise ValueError("data.labels=fixed draws a class of each label, and cannot keep to one superclass")
        look, self.fixed = look.fit_channels(data.pixels.shape[1]), labels == "fixed"
        self.plan, self.rotation, self.look, self.device = plan, rotation, look, device
        self.pixels = data.pixels.to(device) if fits(data.pixels, device) else data.pixels
        self.turn_table = torch.empty(0) if rotation == "none" else make_turn_table(data.pixels.shape[-1]).to(device)
        turns = {s: 4 if rotation in ("class", s) else 1 for s in SPLITS}  # `train` is a split too
        sizes, number = np.diff(data.starts), {name: c for c, name in enumerate(data.names)}
        split = check_split(split, dict(zip(data.names, sizes.tolist(), strict=True)), plan, turns, trainval)
        self._classes = {s: np.array([number[name] for name in split[s]], np.int64) for s in SPLITS}
        self._starts, self._names = data.starts, data.names
        self._sizes = {s: np.tile(sizes[c], turns[s]) for s, c in self._classes.items()}
        self._superclasses = {
            s: find_superclasses(split[s], superclass_of, turns[s], self.plan.shape_of(s))
            for s in plan.splits
            if superclass_of
        }
        self.classes = {s: {f"{self.world or type(self).__name__}/{name}" for name in split[s]} for s in SPLITS}
        self.info = SourceInfo(
            input_shape=tuple(data.pixels.shape[1:]),
            n_way=plan.test.n_way,
            outputs=plan.test.n_way,
            objective=objectives.classification,
            train_classes=len(self._sizes["train"]),
            normalisation=(look.mean, look.std),
            split_sha256=hash_split(split),
            facts={
                "classes": {s: len(self._sizes[s]) for s in SPLITS},
                "images": count_images(sizes[list(set().union(*map(set, self._classes.values())))].tolist()),
                "rotation": rotation,
                "trainval": trainval,
                "first_image_sha256": hashlib.sha256(data.pixels[0].numpy().tobytes()).hexdigest(),
            },
        )

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Batch | MixedBatch]:
        for places in iterate_places(first, batch_size):
            yield self.batch(split, places)

    def batch(self, split: str, indices: Ints) -> Batch | MixedBatch:
        """Return the tasks with the numbers `indices` [B] of a split's stream."""
        parts = self.draw_episodes(split, indices)
        own = zip(parts, np.split(indices, len(parts)), strict=True)
        return as_batch([self._gather_tasks(split, *part, numbers) for part, numbers in own])

    def streams(self, split: str, first: int, n_tasks: int, n_way: int) -> Iterator[Batch]:
        shape, groups = replace(self.plan.shape_of(split), n_way=n_way), self._superclasses.get(split)
        for number in itertools.count(first):
            drawn = draw_stream(self.plan.seed_of(split), split, number, self._sizes[split], n_tasks, shape, groups)
            tasks = self._gather_tasks(split, drawn, n_way, number * n_tasks + np.arange(n_tasks))
            yield tasks._replace(side={"classes": to_device(drawn.classes, self.device)})

    def _gather_tasks(self, split: str, drawn: EpisodeIndices, n_way: int, indices: Ints) -> Batch:
        def make(side: int, images: Ints, y: Ints) -> Examples:
            bits = self._draw_random_words(f"{split}/augment/{side}", indices, images.shape[1])
            return self._make_examples(split, drawn, images, y, bits)

        support, query = make(0, drawn.support, drawn.support_y), make(1, drawn.query, drawn.query_y)
        if split != "train":
            gather = partial(self.gather_images, *self.place_images(split, drawn, drawn.support, drawn.support_y))
            support = add_views(support, gather, self.look, self.plan.seed_of(split), split, indices)
        return Batch(support, query, n_way, self.describe_tasks(split, drawn))

    def embedded(self, split: str, encode: Callable[[Tensor], Tensor], n_tasks: int) -> TaskSource | None:
        """Return the tasks of val or test with each image replaced by its embedding, which `encode` makes.

        Return None if the first `n_tasks` tasks hold fewer images than the split, each task changes its images for
        itself, or embeddings take too much memory.
        """
        shape, n_images = self.plan.shape_of(split), len(self.find_rows(split)) * self.count_turns(split)
        if self.look.views > 1 or n_images > n_tasks * shape.n_way * (shape.k_shot + shape.n_query):
            return None
        with suppress(MemoryError):
            return Embedded(self, split, encode)
        return None

    def labels(self, split: str, index: int) -> list[str]:
        """Return the names of the classes that are labelled 0..N-1 in task number `index`."""
        [(drawn, _)] = self.draw_episodes(split, np.array([index]))
        turn, base = np.divmod(drawn.classes[0], len(self._classes[split]))
        names = [self._names[number] for number in self._classes[split][base]]
        return [f"{name} turned by {90 * t}" if t else name for name, t in zip(names, turn.tolist(), strict=True)]

    def examples(self, split: str, first: int, batch_size: int) -> Iterator[Examples]:
        for places in iterate_places(first, batch_size):
            yield self.gather_examples(split, places)

    def gather_examples(self, split: str, indices: Ints) -> Examples:
        """Return the images at places `indices` [R] of a split's stream of examples: x [R, C, H, W], classes y [R]."""
        seed = self.plan.seed_of(split)
        label, image = draw_members(seed, f"{split}/examples", indices, self._sizes[split])
        turn = (draw_bits(seed, f"{split}/turns", indices, 1) >> np.uint64(62)).astype(np.int64)  # [R, 1] in 0..3
        zero, none = np.zeros((len(indices), 1), np.int64), np.empty((len(indices), 0), np.int64)
        drawn = EpisodeIndices(label[:, None], turn, image[:, None], zero, none, none)  # R tasks of one image each
        bits = self._draw_random_words(f"{split}/augment/examples", indices, 1)
        x = self._make_examples(split, drawn, drawn.support, drawn.support_y, bits).x[:, 0]
        return Examples(x, to_device(label, x.device))

    def gather_plain_images(self, split: str, indices: Ints) -> Tensor:
        """Return the same images without normalisation: [R, C, H, W] in 0..1."""
        x = self.gather_examples(split, indices).x
        mean, std = (x.new_tensor(list(values))[:, None, None] for values in (self.look.mean, self.look.std))
        return x * std + mean

    def fingerprint(self, split: str, n_tasks: int) -> str:
        return hash_parts(self.draw_episodes(split, np.arange(n_tasks)))

    def draw_episodes(self, split: str, indices: Ints) -> list[tuple[EpisodeIndices, int]]:
        """Draw the classes and images of the tasks number `indices` [B], with n_way; one by one if shapes vary."""
        if not len(self._sizes[split]):
            raise ConfigError(f"no classes to {split} on: metarun eval tests on all, data.split=random splits them")
        shape, groups, fixed = self.plan.shape_of(split), self._superclasses.get(split), self.fixed and split == "train"
        return draw_by_shape(self.plan.seed_of(split), split, indices, self._sizes[split], shape, groups, fixed)

    def describe_tasks(self, split: str, drawn: EpisodeIndices) -> dict[str, Tensor]:
        """Return what is known of the drawn tasks besides their images, for `Batch.side`: here nothing."""
        return {}

    def take_apart(self) -> tuple[ImageClasses, dict[str, list[str]]]:
        """Return all images, and the names of each split's classes."""
        split = {s: [self._names[c] for c in numbers] for s, numbers in self._classes.items()}
        return ImageClasses(self.pixels, self._starts, self._names), split

    def find_rows(self, split: str) -> Ints:
        """Return the rows of a split's images among all images, in rising order."""
        return np.concatenate([np.arange(*self._starts[[c, c + 1]]) for c in np.sort(self._classes[split])])

    def count_turns(self, split: str) -> int:
        """Return the number of turns in which an image may appear."""
        return 4 if self.rotation in ("class", "random", split) else 1

    def place_images(self, split: str, drawn: EpisodeIndices, images: Ints, y: Ints) -> tuple[Ints, Ints]:
        """Return the rows of the drawn images, whose labels are y, and their numbers of quarter turns: [B, S] each."""
        drawn_class = np.take_along_axis(drawn.classes, y, axis=1)  # [B, S]
        turn, base = np.divmod(drawn_class, len(self._classes[split]))
        if self.rotation == "random":
            turn = np.take_along_axis(drawn.rotation, y, axis=1)
        return self._starts[self._classes[split][base]] + images, turn

    def gather_images(self, rows: Ints, turn: Ints) -> Tensor:
        """Return the images at `rows` [...], each turned by its quarter turns, on the device: [..., C, H, W] uint8."""
        x = self.pixels[to_device(rows, self.pixels.device)].to(self.device)
        if self.rotation == "none":
            return x
        flat = x.flatten(-2)  # [..., C, H W]
        source_pixel = self.turn_table[to_device(turn, self.device)]  # [..., H W]
        return flat.gather(-1, source_pixel[..., None, :].expand_as(flat)).view_as(x)

    def _draw_random_words(self, stream: str, indices: Ints, n_images: int) -> Bits | None:
        """Draw the random words that augment each image; None if nothing does."""
        plain = self.look.augment == "none" or not stream.startswith("train")
        return None if plain else self.look.draw_words(self.plan.seed, stream, indices, n_images)

    def _make_examples(
        self, split: str, drawn: EpisodeIndices, images: Ints, y: Ints, bits: Bits | None = None
    ) -> Examples:
        x = self.gather_images(*self.place_images(split, drawn, images, y))
        return Examples(self.look(x, bits), to_device(y, self.device))
