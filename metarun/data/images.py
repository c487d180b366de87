"""Few-shot tasks from classes of images that lie in memory, or mapped from a file, as one uint8 tensor."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarun.core import objectives
from metarun.core.episodes import Bits, EpisodeIndices, draw, random_bits, shuffled
from metarun.core.errors import ConfigError
from metarun.core.tasks import Batch, EpisodePlan, EpisodeShape, Examples, SourceInfo, TaskSource
from metarun.data.augment import Look
from metarun.data.device import on_device
from metarun.data.embedded import Embedded
from metarun.data.files.checked import checked

SPLITS = ("train", "val", "test")
Rotation = Literal["none", "class", "train", "random"]
PLAIN = Look()


@dataclass(frozen=True)
class ImageClasses:
    """Images class by class: pixels [R, C, H, W] uint8; class c, named names[c], is rows starts[c] to starts[c+1]-1."""

    pixels: Tensor
    starts: NDArray[np.int64]
    names: list[str]


class ImageTasks:
    """N-way K-shot classification tasks over disjoint train, val and test classes.

    A meta-batch is one gather from the uint8 tensor, made into inputs on the device.

    Args:
        data: all images.
        split: class names of each of train, val, test.
        plan: shapes and seeds of the tasks.
        rotation: `none`; `class` makes each rotation by 0, 90, 180, 270 degrees a class of its own, `train` in
            training alone; `random` turns each class of an episode by one of the four.
        device: where tasks are made; images lie there too if they fit into half of its free memory.
        look: how pixels become inputs.
        trainval: training tasks come from the classes of train and val; validation then says little.
        group_of: a class's group, if the classes of a task have to be of one group.
    Raises: ValueError if splits share a class, or a split has too few classes, or a class too few images.
    """

    world = ""
    """Sources of one world have the same classes under the same names; empty: the source's own."""

    def __init__(
        self,
        data: ImageClasses,
        split: Mapping[str, list[str]],
        plan: EpisodePlan,
        rotation: str,
        device: torch.device,
        look: Look = PLAIN,
        trainval: bool = False,
        group_of: Callable[[str], str] | None = None,
    ) -> None:
        if rotation not in get_args(Rotation):
            raise ValueError(f"data.rotation={rotation} is not one of {', '.join(get_args(Rotation))}")
        if rotation != "none" and data.pixels.shape[-1] != data.pixels.shape[-2]:
            raise ValueError(f"data.rotation={rotation} needs square images, not {tuple(data.pixels.shape[-2:])}")
        if len(look.mean) not in (1, data.pixels.shape[1]):
            raise ValueError(f"data.mean has {len(look.mean)} numbers for images of {data.pixels.shape[1]} channels")
        self.plan, self.rotation, self.look, self.device = plan, rotation, look, device
        self.pixels = data.pixels.to(device) if _fits(data.pixels, device) else data.pixels
        self.turned = torch.empty(0) if rotation == "none" else _turned(data.pixels.shape[-1]).to(device)
        turns = {s: 4 if rotation in ("class", s) else 1 for s in SPLITS}  # `train` is a split too
        number = {name: c for c, name in enumerate(data.names)}
        sizes = np.diff(data.starts)
        split = checked(split, dict(zip(data.names, sizes.tolist(), strict=True)), plan, turns, trainval)
        self._classes = {s: np.array([number[name] for name in split[s]], np.int64) for s in SPLITS}
        self._starts, self._names = data.starts, data.names
        self._sizes = {s: np.tile(sizes[c], turns[s]) for s, c in self._classes.items()}
        self._groups = {s: _groups(split[s], group_of, turns[s], self._shape(s)) for s in plan.splits if group_of}
        self.classes = {s: {f"{self.world or type(self).__name__}/{name}" for name in split[s]} for s in SPLITS}
        digest = hashlib.sha256("\n".join(f"{s} {name}" for s in SPLITS for name in sorted(split[s])).encode())
        self.info = SourceInfo(
            input_shape=tuple(data.pixels.shape[1:]),
            n_way=plan.test.n_way,
            outputs=plan.test.n_way,
            objective=objectives.classification,
            train_classes=len(self._sizes["train"]),
            normalisation=(look.mean, look.std),
            split_sha256=digest.hexdigest(),
            facts={
                "classes": {s: len(self._sizes[s]) for s in SPLITS},
                "rotation": rotation,
                "trainval": trainval,
                "first_image_sha256": hashlib.sha256(data.pixels[0].numpy().tobytes()).hexdigest(),
            },
        )

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Batch]:
        while True:
            yield self.batch(split, np.arange(first, first + batch_size))
            first += batch_size

    def batch(self, split: str, indices: NDArray[np.int64]) -> Batch:
        """The tasks number `indices` of a split's stream."""
        drawn, n_way = self.drawn(split, indices)
        sides = (drawn.support, drawn.support_y), (drawn.query, drawn.query_y)
        support, query = (
            self._examples(split, drawn, images, y, self._words(f"{split}/augment/{number}", indices, images.shape[1]))
            for number, (images, y) in enumerate(sides)
        )
        return Batch(support, query, n_way)

    def embedded(self, split: str, encode: Callable[[Tensor], Tensor], n_tasks: int) -> TaskSource | None:
        """The tasks of val or test with what `encode` makes of each image by itself in its place.

        None if the first `n_tasks` tasks hold fewer images than the split has, or embeddings take too much memory.
        """
        shape = self._shape(split)
        if len(self.rows_of(split)) * self.turns_of(split) > n_tasks * shape.n_way * (shape.k_shot + shape.n_query):
            return None
        with suppress(MemoryError):
            return Embedded(self, split, encode)
        return None

    def labels(self, split: str, index: int) -> list[str]:
        """The classes that labels 0..N-1 of task number `index` stand for."""
        drawn, _ = self.drawn(split, np.array([index]))
        turn, base = np.divmod(drawn.classes[0], len(self._classes[split]))
        names = [self._names[number] for number in self._classes[split][base]]
        return [f"{name} turned by {90 * t}" if t else name for name, t in zip(names, turn.tolist(), strict=True)]

    def examples(self, split: str, first: int, batch_size: int) -> Iterator[Examples]:
        while True:
            yield self.labelled(split, np.arange(first, first + batch_size))
            first += batch_size

    def labelled(self, split: str, indices: NDArray[np.int64]) -> Examples:
        """The images at places `indices` [R] of a split's stream of examples: x [R, C, H, W], y [R] their classes."""
        sizes, seed = self._sizes[split], self._seed(split)
        ends = np.cumsum(sizes)
        number = shuffled(seed, f"{split}/examples", indices, int(ends[-1]))
        label = np.searchsorted(ends, number, side="right")
        image = number - (ends - sizes)[label]
        turn = (random_bits(seed, f"{split}/turns", indices, 1) >> np.uint64(62)).astype(np.int64)
        one, none = np.zeros((len(indices), 1), np.int64), np.empty((len(indices), 0), np.int64)
        drawn = EpisodeIndices(label[:, None], turn, image[:, None], one, none, none)  # R tasks of one image each
        bits = self._words(f"{split}/augment/examples", indices, 1)
        x = self._examples(split, drawn, drawn.support, drawn.support_y, bits).x[:, 0]
        return Examples(x, on_device(label, x.device))

    def bare(self, split: str, indices: NDArray[np.int64]) -> Tensor:
        """The images at places `indices` [R] of a split's stream of examples as they are: [R, C, H, W] in 0..1."""
        x = self.labelled(split, indices).x
        mean, std = (x.new_tensor(list(values))[:, None, None] for values in (self.look.mean, self.look.std))
        return x * std + mean

    def fingerprint(self, split: str, n_tasks: int) -> str:
        drawn, _ = self.drawn(split, np.arange(n_tasks))
        return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in drawn)).hexdigest()

    def _shape(self, split: str) -> EpisodeShape:
        return self.plan.train if split == "train" else self.plan.test

    def drawn(self, split: str, indices: NDArray[np.int64]) -> tuple[EpisodeIndices, int]:
        """Which classes and images the tasks number `indices` hold, and their n_way."""
        if not len(self._sizes[split]):
            raise ConfigError(f"this data set has no classes to {split} on; it is there to be tested on: metarun eval")
        shape = self._shape(split)
        return draw(self._seed(split), split, indices, self._sizes[split], shape, self._groups.get(split)), shape.n_way

    def rows_of(self, split: str) -> NDArray[np.int64]:
        """Where a split's images lie among all, rising."""
        classes = np.sort(self._classes[split])
        return np.concatenate([np.arange(self._starts[c], self._starts[c + 1]) for c in classes])

    def turns_of(self, split: str) -> int:
        """In how many turns an image may come."""
        return 4 if self.rotation in ("class", "random", split) else 1

    def placed(
        self, split: str, drawn: EpisodeIndices, images: NDArray[np.int64], y: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the drawn images of classes y lie among all, and their quarter turns: [B, S] each."""
        drawn_class = np.take_along_axis(drawn.classes, y, axis=1)
        turn, base = np.divmod(drawn_class, len(self._classes[split]))
        if self.rotation == "random":
            turn = np.take_along_axis(drawn.rotation, y, axis=1)
        return self._starts[self._classes[split][base]] + images, turn

    def pictures(self, rows: NDArray[np.int64], turn: NDArray[np.int64]) -> Tensor:
        """The images at `rows` [...] in their quarter turns, on the device: [..., C, H, W] uint8."""
        x = self.pixels[on_device(rows, self.pixels.device)].to(self.device)
        if self.rotation == "none":
            return x
        flat = x.flatten(-2)
        return flat.gather(-1, self.turned[on_device(turn, self.device)][..., None, :].expand_as(flat)).view_as(x)

    def _seed(self, split: str) -> int:
        return self.plan.seed if split == "train" else self.plan.eval_seed

    def _words(self, stream: str, indices: NDArray[np.int64], n_images: int) -> Bits | None:
        """What augments each image of the tasks [B, n_images, words]; None where images stay as they are."""
        if self.look.augment == "none" or not stream.startswith("train"):
            return None
        return random_bits(self.plan.seed, stream, indices, n_images * self.look.words).reshape(
            len(indices), n_images, -1
        )

    def _examples(
        self,
        split: str,
        drawn: EpisodeIndices,
        images: NDArray[np.int64],
        y: NDArray[np.int64],
        bits: Bits | None = None,
    ) -> Examples:
        x = self.pictures(*self.placed(split, drawn, images, y))
        return Examples(self.look(x, bits), on_device(y, self.device))


def _turned(side: int) -> Tensor:
    """Which pixel of a square image stands where after 0 to 3 quarter turns to the left: [4, side * side]."""
    pixels = torch.arange(side * side).view(side, side)
    return torch.stack([torch.rot90(pixels, quarter).flatten() for quarter in range(4)])


def _groups(
    names: list[str], group_of: Callable[[str], str], turns: int, shape: EpisodeShape
) -> list[NDArray[np.int64]]:
    """The numbers of the classes of each group, by rotation if that makes classes, that a task can be drawn from."""
    members: dict[str, list[int]] = defaultdict(list)
    for number, name in enumerate(names):
        members[group_of(name)].append(number)
    enough = [np.array(numbers) for numbers in members.values() if len(numbers) >= shape.n_way]
    if members and not enough:
        most = max(map(len, members.values()))
        raise ValueError(f"n_way={shape.n_way} classes of one group are asked for; the largest group has {most}")
    return [numbers + turn * len(names) for turn in range(turns) for numbers in enough]


def _fits(pixels: Tensor, device: torch.device) -> bool:
    return device.type != "cuda" or pixels.nbytes < torch.cuda.mem_get_info(device)[0] / 2
