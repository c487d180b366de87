"""Regression tasks: each task is a function of a family, seen at a few random points."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from metarun.core import objectives
from metarun.core.episodes import Floats, draw_bits, iterate_places, scale_to_unit
from metarun.core.tasks import Batch, EpisodePlan, EpisodeShape, Examples, SourceInfo
from metarun.data.device import to_device


class PointTasks(ABC):
    """K-shot regression: the base class of sources whose tasks are sets of points (x, y).

    Args:
        plan: numbers of points and seeds of the tasks.
        device: where tasks are made.
    """

    info: SourceInfo

    def __init__(self, plan: EpisodePlan, device: torch.device) -> None:
        if plan.train.n_way or plan.test.n_way:
            raise ValueError("data.n_way has no meaning where tasks are functions, which have no classes")
        self.plan, self.device = plan, device

    @abstractmethod
    def batch(self, split: str, indices: NDArray[np.int64]) -> Batch:
        """Return the tasks with the numbers `indices` [B] of a split's stream."""

    @abstractmethod
    def fingerprint(self, split: str, n_tasks: int) -> str:
        """Return a hash of the random numbers behind the tasks, which no rounding affects."""

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Batch]:
        for places in iterate_places(first, batch_size):
            yield self.batch(split, places)

    def shape(self, split: str) -> EpisodeShape:
        return self.plan.shape_of(split)

    def seed(self, split: str) -> int:
        return self.plan.seed_of(split)

    def most_shots(self, split: str) -> int:
        """Return the greatest number of support points of a task."""
        shape = self.shape(split)
        return shape.k_shot if shape.most_shots is None else shape.most_shots

    def shots(self, split: str, first: int) -> int:
        """Draw the number of support points of the meta-batch that begins with task number `first`."""
        least = self.shape(split).k_shot
        u = scale_to_unit(draw_bits(self.seed(split), f"{split}/shots", np.array([first]), 1))[0, 0]
        return least + int(u * (self.most_shots(split) + 1 - least))

    def sides(self, split: str, first: int, x: Tensor, y: Tensor) -> Batch:
        """Make a meta-batch of points [B, most_shots + Q, ...]: support points come first, the Q query points last."""
        k, most = self.shots(split, first), self.most_shots(split)
        return Batch(Examples(x[:, :k], y[:, :k]), Examples(x[:, most:], y[:, most:]), 0)


class FunctionTasks(PointTasks):
    """Functions from numbers to numbers. Each split is its own stream of functions, all from the same family.

    Args:
        plan, device: see PointTasks.
        family: settings that functions and points are drawn from, by name; the hash of the splits is made from them.
    """

    numbers: ClassVar[int]
    """How many random numbers define a function."""

    point_numbers: ClassVar[int] = 1
    """How many random numbers define one point of a function."""

    told: int = 0
    """How many facts of its function each input carries, see `tell`."""

    def __init__(self, plan: EpisodePlan, device: torch.device, family: Mapping[str, Any]) -> None:
        super().__init__(plan, device)
        facts = {"family": type(self).__name__, **family}
        self.info = SourceInfo(
            input_shape=(1 + self.told,),
            n_way=0,
            outputs=1,
            objective=objectives.regression,
            split_sha256=hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest(),
            facts=facts,
        )

    @abstractmethod
    def points(self, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        """Make x and y [B, P] from random numbers in [0, 1).

        Args:
            u: numbers that define the functions, [B, numbers].
            v: numbers that define their points, [B, point_numbers, P].
        """

    def batch(self, split: str, indices: NDArray[np.int64]) -> Batch:
        u, v = np.split(self._draw_numbers(split, indices), [self.numbers], axis=1)
        x, y = self.points(u, v.reshape(len(indices), self.point_numbers, -1))  # [B, P] each
        facts = np.broadcast_to(self.tell(u)[:, None], (*x.shape, self.told))
        points = np.concatenate([x[..., None], facts, y[..., None]], -1)  # [B, P, 1 + told + 1]
        both = to_device(points, self.device, torch.get_default_dtype())
        return self.sides(split, int(indices[0]), both[..., :-1], both[..., -1:])

    def tell(self, u: Floats) -> Floats:
        """Return the facts that inputs carry of their functions [B, told], made from the functions' numbers u."""
        return u[:, :0]

    def fingerprint(self, split: str, n_tasks: int) -> str:
        return hashlib.sha256(self._draw_numbers(split, np.arange(n_tasks)).tobytes()).hexdigest()

    def _draw_numbers(self, split: str, indices: NDArray[np.int64]) -> Floats:
        """Draw random numbers in [0, 1) for each task: those of its function, then those of its points."""
        points = self.most_shots(split) + self.shape(split).n_query
        return scale_to_unit(draw_bits(self.seed(split), split, indices, self.numbers + self.point_numbers * points))


def read_interval(key: str, ends: Sequence[float]) -> tuple[float, float]:
    """Return the least and greatest value of the setting data.`key`.

    Raises: ValueError unless `ends` are two numbers in rising order.
    """
    if not isinstance(ends, Sequence) or len(ends) != 2 or ends[0] > ends[1]:
        raise ValueError(f"data.{key}={ends} must be two numbers, the least and the greatest: data.{key}=[1,2]")
    return float(ends[0]), float(ends[1])


def stretch(u: Floats, low: float, high: float) -> Floats:
    """Stretch numbers in [0, 1) to [low, high)."""
    return low + u * (high - low)


def to_normal(u: Floats) -> Floats:
    """Turn uniform numbers in [0, 1) into standard normal ones, taking the middle of each step of 2^-53."""
    z: Floats = ndtri(u + 2.0**-54)
    return z
