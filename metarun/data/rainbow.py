from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metarun.core import objectives
from metarun.core.episodes import Ints, draw_bits, draw_distinct, draw_episodes, draw_examples, iterate_places
from metarun.core.tasks import Batch, EpisodePlan, Examples, SourceInfo
from metarun.data.device import to_device
from metarun.data.images import ImageTasks

COLOURS = (
    ("red", (1.0, 0.0, 0.0)),
    ("orange", (1.0, 0.5, 0.0)),
    ("yellow", (1.0, 1.0, 0.0)),
    ("green", (0.0, 1.0, 0.0)),
    ("blue", (0.0, 0.0, 1.0)),
    ("indigo", (0.4, 0.0, 0.8)),
    ("violet", (0.9, 0.5, 0.9)),
)
SCALES, TURNS = 2, 4
LOOKS = len(COLOURS) * SCALES * TURNS
"""A task's characters have one of 7 colours, their size or half of it, and one of four quarter turns."""


class Rainbow:
    """The same few characters in 56 looks, one a task: 7 colours x 2 sizes x 4 quarter turns. A stream for run=online.

    A character has the same label in all tasks. The looks come in random order, each once before any comes again, with
    newly drawn images. Train, val and test have characters of their own, which `seed` and `eval_seed` choose among the
    source's. It is made as rainbow MNIST was, of other characters; the ink has the colour.

    Args:
        plan, device: from the runner; the number of characters is n_way.
        open_source: from the runner; opens the source that a name of `data=` stands for.
        images: name of the source of the images.
    Raises: ValueError if the source has no square images.
    Reference: Finn, Rajeswaran, Kakade, Levine. Online Meta-Learning. ICML 2019. arXiv:1902.08438, section 5.1.
    """

    def __init__(
        self, plan: EpisodePlan, device: torch.device, open_source: Callable[[str, EpisodePlan], Any], images: str
    ) -> None:
        source = open_source(images, plan)
        if not isinstance(source, ImageTasks) or len(set(source.info.input_shape[1:])) > 1:
            raise ValueError(f"data.images={images} is not a source of square images; data.images=omniglot is one")
        self.plan, self.device = plan, device
        data, split = source.take_apart()
        self.pixels, self.starts, self.names = data.pixels, data.starts, data.names
        place = {name: number for number, name in enumerate(data.names)}
        self.characters = {  # of each split, by label: [N]
            s: self._choose(s, np.array([place[name] for name in split[s]], np.int64)) for s in split
        }
        self.info = SourceInfo(
            input_shape=(3, *source.info.input_shape[1:]),
            n_way=plan.test.n_way,
            outputs=plan.test.n_way,
            objective=objectives.classification,
            split_sha256=hashlib.sha256(repr({s: c.tolist() for s, c in self.characters.items()}).encode()).hexdigest(),
            facts={"images": images, "looks": LOOKS, **source.info.facts},
            train_classes=plan.train.n_way,
            normalisation=([0.0], [1.0]),
        )

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Batch]:
        for places in iterate_places(first, batch_size):
            yield self.batch(split, places)

    def batch(self, split: str, indices: Ints) -> Batch:
        """Return the tasks with the numbers `indices` [B] of a split's stream."""
        shape, seed, characters = self.plan.shape_of(split), self.plan.seed_of(split), self.characters[split]
        drawn = draw_episodes(seed, split, indices, np.diff(self.starts)[characters], shape, fixed=True)
        looks = draw_examples(seed, f"{split}/looks", indices, LOOKS)
        sides = ((drawn.support, drawn.support_y), (drawn.query, drawn.query_y))
        support, query = (
            Examples(self._show(self.starts[characters[y]] + images, looks), to_device(y, self.device))
            for images, y in sides
        )
        return Batch(support, query, shape.n_way)

    def examples(self, split: str, first: int, batch_size: int) -> Iterator[Examples]:
        """Yield single images of the split's characters in all looks; y is the character's label."""
        rows = [np.arange(self.starts[c], self.starts[c + 1]) for c in self.characters[split]]
        labels, every = np.repeat(np.arange(len(rows)), [len(own) for own in rows]), np.concatenate(rows)
        for places in iterate_places(first, batch_size):
            drawn = draw_examples(self.plan.seed_of(split), f"{split}/examples", places, len(every) * LOOKS)
            number, look = np.divmod(drawn, LOOKS)
            yield Examples(self._show(every[number][:, None], look)[:, 0], to_device(labels[number], self.device))

    def labels(self, split: str, index: int) -> list[str]:
        """Return the names of what is labelled 0..N-1 in task number `index`."""
        look = int(draw_examples(self.plan.seed_of(split), f"{split}/looks", np.array([index]), LOOKS)[0])
        colour, size, turn = _take_apart(look)
        words = f"{COLOURS[colour][0]}, {('whole', 'half')[size]} size, turned by {90 * turn}"
        return [f"{self.names[c]}, {words}" for c in self.characters[split]]

    def fingerprint(self, split: str, n_tasks: int) -> str:
        batch = self.batch(split, np.arange(n_tasks))
        parts = [(side.x * 255).round().to(torch.uint8) for side in batch[:2]] + [side.y for side in batch[:2]]
        return hashlib.sha256(b"".join(part.cpu().numpy().tobytes() for part in parts)).hexdigest()

    def _choose(self, split: str, classes: Ints) -> Ints:
        """Choose as many of the classes as a task has."""
        if not len(classes):
            return classes
        n_way = self.plan.shape_of(split).n_way
        bits = draw_bits(self.plan.seed_of(split), f"{split}/characters", np.array([0]), n_way)
        chosen: Ints = classes[draw_distinct(bits, np.array([len(classes)]))[0]]
        return chosen

    def _show(self, rows: Ints, looks: Ints) -> Tensor:
        """Return the images at `rows` [B, S] in the looks [B]: [B, S, 3, H, W]."""
        gray = self.pixels[to_device(rows, self.pixels.device)].to(self.device, torch.get_default_dtype()) / 255
        gray = gray.mean(2)  # [B, S, H, W]
        shown = []
        for task, look in zip(gray, looks.tolist(), strict=True):
            colour, size, turn = _take_apart(look)
            turned = torch.rot90(_shrink(task) if size else task, turn, (1, 2))
            shown.append(turned[:, None] * turned.new_tensor(COLOURS[colour][1])[:, None, None])
        return torch.stack(shown)


def _take_apart(look: int) -> tuple[int, int, int]:
    """Return the numbers of a look's colour, size and quarter turns."""
    return look // (SCALES * TURNS), look // TURNS % SCALES, look % TURNS


def _shrink(x: Tensor) -> Tensor:
    """Return images [S, H, H] at half their size, in the middle of empty ones."""
    half = F.avg_pool2d(x[:, None], 2)[:, 0]
    before = (x.shape[-1] - half.shape[-1]) // 2
    after = x.shape[-1] - half.shape[-1] - before
    return F.pad(half, (before, after, before, after))
