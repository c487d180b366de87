"""Few-shot tasks from classes of images that lie in memory as one uint8 tensor."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarun.episodes import EpisodeIndices, draw
from metarun.types import Batch, EpisodePlan, EpisodeShape, Examples, SourceInfo

SPLITS = ("train", "val", "test")
ROTATIONS = ("none", "class", "random")


@dataclass(frozen=True)
class ImageClasses:
    """Images class by class: pixels [R, C, H, W] uint8; class c, named names[c], is rows starts[c] to starts[c+1]-1."""

    pixels: Tensor
    starts: NDArray[np.int64]
    names: list[str]


class ImageTasks:
    """N-way K-shot classification tasks over disjoint train, val and test classes.

    A meta-batch is one gather from the uint8 tensor, turned into numbers in 0..1 on the tensor's device.

    Args:
        data: all images.
        split: class names of each of train, val, test.
        plan: shapes and seeds of the tasks.
        rotation: `none`; `class` makes each rotation by 0, 90, 180, 270 degrees a class of its own; `random` turns
            each class of an episode by one of the four.
        device: where images lie and tasks are made.
    Raises: ValueError if splits share a class, or a split has too few classes, or a class too few images.
    """

    def __init__(
        self, data: ImageClasses, split: Mapping[str, list[str]], plan: EpisodePlan, rotation: str, device: torch.device
    ) -> None:
        if rotation not in ROTATIONS:
            raise ValueError(f"data.rotation={rotation} is not one of {', '.join(ROTATIONS)}")
        if rotation != "none" and data.pixels.shape[-1] != data.pixels.shape[-2]:
            raise ValueError(f"data.rotation={rotation} needs square images, not {tuple(data.pixels.shape[-2:])}")
        self.plan, self.rotation = plan, rotation
        self.pixels = data.pixels.to(device)
        turns = 4 if rotation == "class" else 1
        number = {name: c for c, name in enumerate(data.names)}
        sizes = np.diff(data.starts)
        self._classes = {s: np.array([number[name] for name in split[s]], np.int64) for s in SPLITS}
        self._starts = data.starts
        self._sizes = {s: np.tile(sizes[c], turns) for s, c in self._classes.items()}
        _check(split, {s: sizes[c] for s, c in self._classes.items()}, self._sizes, plan)
        digest = hashlib.sha256("\n".join(f"{s} {name}" for s in SPLITS for name in sorted(split[s])).encode())
        self.info = SourceInfo(
            input_shape=tuple(data.pixels.shape[1:]),
            n_way=plan.test.n_way,
            split_sha256=digest.hexdigest(),
            facts={
                "classes": {s: len(self._sizes[s]) for s in SPLITS},
                "rotation": rotation,
                "first_image_sha256": hashlib.sha256(data.pixels[0].numpy().tobytes()).hexdigest(),
            },
        )

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Batch]:
        while True:
            yield self.batch(split, np.arange(first, first + batch_size))
            first += batch_size

    def batch(self, split: str, indices: NDArray[np.int64]) -> Batch:
        """The tasks number `indices` of a split's stream."""
        drawn, shape = self._draw(split, indices), self._shape(split)
        return Batch(
            self._examples(split, drawn, drawn.support, drawn.support_y),
            self._examples(split, drawn, drawn.query, drawn.query_y),
            shape.n_way,
        )

    def fingerprint(self, split: str, n_tasks: int) -> str:
        drawn = self._draw(split, np.arange(n_tasks))
        return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in drawn)).hexdigest()

    def _shape(self, split: str) -> EpisodeShape:
        return self.plan.train if split == "train" else self.plan.test

    def _draw(self, split: str, indices: NDArray[np.int64]) -> EpisodeIndices:
        seed = self.plan.seed if split == "train" else self.plan.eval_seed
        return draw(seed, split, indices, self._sizes[split], self._shape(split))

    def _examples(self, split: str, drawn: EpisodeIndices, images: NDArray[np.int64], y: NDArray[np.int64]) -> Examples:
        drawn_class = np.take_along_axis(drawn.classes, y, axis=1)  # [B, S]
        turn, base = np.divmod(drawn_class, len(self._classes[split]))
        if self.rotation == "random":
            turn = np.take_along_axis(drawn.rotation, y, axis=1)
        rows = self._starts[self._classes[split][base]] + images
        device = self.pixels.device
        x = self.pixels[torch.from_numpy(rows).to(device)]  # [B, S, C, H, W]
        if self.rotation != "none":
            x = _turned(x, torch.from_numpy(turn).to(device))
        return Examples(x.to(torch.get_default_dtype()).div_(255), torch.from_numpy(y).to(device))


def _turned(x: Tensor, turns: Tensor) -> Tensor:
    """Each image [..., C, H, W] turned left by its number of quarter turns [...]."""
    out = x.clone()
    for quarter in (1, 2, 3):
        chosen = turns == quarter
        out[chosen] = torch.rot90(x[chosen], quarter, (-2, -1))
    return out


def _check(
    split: Mapping[str, list[str]],
    images: Mapping[str, NDArray[np.int64]],
    classes: Mapping[str, NDArray[np.int64]],
    plan: EpisodePlan,
) -> None:
    problems = []
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = sorted(set(split[one]) & set(split[other]))
        if shared:
            problems.append(f"splits {one} and {other} share {len(shared)} classes, {shared[0]} among them")
    for name in SPLITS:
        key, shape = ("data.train", plan.train) if name == "train" else ("data", plan.test)
        if shape.n_way > len(classes[name]):
            have = len(classes[name])
            problems.append(
                f"{key}.n_way={shape.n_way} needs {shape.n_way} classes; split '{name}' has {have}. "
                f"Set {key}.n_way={have} or less"
            )
        need = shape.k_shot + shape.n_query
        smallest = int(images[name].min()) if len(images[name]) else 0
        if len(images[name]) and need > smallest:
            short, most = split[name][int(images[name].argmin())], max(smallest - shape.k_shot, 1)
            problems.append(
                f"{key}.k_shot={shape.k_shot} and {key}.n_query={shape.n_query} need {need} images of a class; "
                f"'{short}' of split '{name}' has {smallest}. Set {key}.n_query={most} or less"
            )
    if problems:
        raise ValueError("\n".join(problems))
