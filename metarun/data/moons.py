from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from metarun.core import objectives
from metarun.core.episodes import Floats, draw_bits, draw_examples, iterate_places, scale_to_unit
from metarun.core.ranges import NonNegativeFloat, PositiveInt
from metarun.core.tasks import Batch, EpisodePlan, EpisodeShape, Examples, Pairs, SourceInfo
from metarun.data.device import to_device
from metarun.data.functions import to_normal

MIDDLE = np.array([0.5, 0.25])
"""Of both moons, about which they are turned."""


class Moons:
    """Two interleaving half circles in the plane, and the same turned: a problem of domain adaptation.

    The upright moons are the source, the turned ones the target; which moon a point lies on is its class. Training has
    a fixed number of labelled source points, and as many target points without labels. Support points of all tasks are
    of the source, and so are the query points in training and validation; those of tests are of the target.

    Args:
        plan, device: from the runner.
        points: training points of each domain, half on each moon.
        noise: standard deviation of what is added to both coordinates, >= 0.
        angle: by which the target is turned to the left, in degrees.
    Reference: Ganin et al. Domain-Adversarial Training of Neural Networks. JMLR 2016. arXiv:1505.07818, section 5.1.1.
    """

    kinds = ("domains",)

    def __init__(
        self, plan: EpisodePlan, device: torch.device, points: PositiveInt, noise: NonNegativeFloat, angle: float
    ) -> None:
        self.plan, self.device = plan, device
        self.n_points, self.noise, self.angle = points, noise, angle
        facts = {"points": points, "noise": noise, "angle": angle}
        self.info = SourceInfo(
            input_shape=(2,),
            n_way=2,
            outputs=2,
            objective=objectives.classification,
            train_classes=2,
            split_sha256=hashlib.sha256(repr(facts).encode()).hexdigest(),
            facts=facts,
        )

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Batch]:
        for places in iterate_places(first, batch_size):
            yield self.batch(split, places)

    def examples(self, split: str, first: int, batch_size: int) -> Iterator[Examples]:
        for pairs in self.pairs(split, first, batch_size):
            yield pairs.source

    def pairs(self, split: str, first: int, batch_size: int) -> Iterator[Pairs]:
        for places in iterate_places(first, batch_size):
            source, target = (self._gather_points(split, domain, places) for domain in ("source", "target"))
            yield Pairs(source, target.x)

    def batch(self, split: str, indices: NDArray[np.int64]) -> Batch:
        """Return the tasks with the numbers `indices` [B] of a split's stream."""
        shape, u = self.plan.shape_of(split), draw_points(self.plan, split, indices)
        x = np.split(u, [2 * shape.k_shot], axis=1)  # [B, S, 3] and [B, M, 3]
        turned = False, split == "test"
        support, query = (self._make_points(numbers, turn) for numbers, turn in zip(x, turned, strict=True))
        return Batch(support, query, 2)

    def fingerprint(self, split: str, n_tasks: int) -> str:
        return hashlib.sha256(draw_points(self.plan, split, np.arange(n_tasks)).tobytes()).hexdigest()

    def _gather_points(self, split: str, domain: str, places: NDArray[np.int64]) -> Examples:
        """Return the points at `places` [R] of a domain's stream: all of them once before any comes again."""
        seed, stream = self.plan.seed_of(split), f"{split}/{domain}"
        numbers = draw_examples(seed, f"{stream}/order", places, self.n_points)
        every = scale_to_unit(draw_bits(seed, stream, np.arange(self.n_points), 3))  # [points, 3]
        points = self._make_points(every[None], domain == "target")
        chosen = to_device(numbers, self.device)
        return Examples(points.x[0, chosen], points.y[0, chosen])

    def _make_points(self, u: Floats, turned: bool) -> Examples:
        return make_moons(u, self.noise, np.array([self.angle if turned else 0.0]), self.device)


def draw_points(plan: EpisodePlan, split: str, indices: NDArray[np.int64]) -> Floats:
    """Draw numbers in [0, 1) for each point of the tasks: its place on the moon, and noise, [B, S + M, 3]."""
    points = count_points(plan.shape_of(split))
    return scale_to_unit(draw_bits(plan.seed_of(split), split, indices, 3 * points)).reshape(len(indices), points, 3)


def count_points(shape: EpisodeShape) -> int:
    """Count the points of a task, on both moons."""
    return 2 * (shape.k_shot + shape.n_query)


def make_moons(u: Floats, noise: float, angles: Floats, device: torch.device) -> Examples:
    """Make points of numbers in [0, 1) [B, R, 3], on the one moon and the other in turn: x [B, R, 2], y [B, R].

    Args:
        u: of each point its place on the moon, and noise.
        noise: standard deviation of what is added to both coordinates.
        angles: by which the tasks' moons are turned to the left, in degrees: [B], or [1] for all alike.
    """
    label = np.broadcast_to(np.arange(u.shape[1]) % 2, u.shape[:2])
    angle = np.pi * u[..., 0]
    upper = np.stack([np.cos(angle), np.sin(angle)], -1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], -1)
    x = np.where(label[..., None] == 1, lower, upper) + noise * to_normal(u[..., 1:])
    x = _turn(x, angles[:, None])
    return Examples(to_device(x, device, torch.get_default_dtype()), to_device(label.copy().astype(np.int64), device))


def _turn(x: Floats, degrees: Floats) -> Floats:
    """Turn points [B, R, 2] to the left, task by task by [B, 1] degrees; number by number, so that a task has the same
    bits in any batch."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    across, up = np.moveaxis(x - MIDDLE, -1, 0)
    turned = np.stack([across * cos - up * sin, across * sin + up * cos], -1) + MIDDLE
    return np.where(degrees[..., None] == 0, x, turned)
