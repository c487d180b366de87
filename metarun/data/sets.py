from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from scipy.special import ndtri

from metarun.core import objectives
from metarun.core.episodes import Floats, Ints, draw_bits, iterate_places, scale_to_unit
from metarun.core.ranges import Interval
from metarun.core.tasks import Batch, EpisodePlan, Examples, SourceInfo
from metarun.data.device import to_device
from metarun.data.functions import read_interval, stretch

FAMILIES = ("exponential", "gaussian", "uniform", "laplace")


class Sets:
    """Sets of numbers, each from a distribution of its own: of one of four families, with its own mean and variance.

    A task has N sets, which are its classes; `side["family"]` [B, N] says which of FAMILIES each is from. The splits
    are streams of different sets from the same law.

    Args:
        plan, device: from the runner.
        mean, variance: least and greatest of a distribution.
    Reference: Edwards, Storkey. Towards a Neural Statistician. ICLR 2017. arXiv:1606.02185, section 5.1.
    """

    kinds = ("sets",)

    def __init__(self, plan: EpisodePlan, device: torch.device, mean: Interval, variance: Interval) -> None:
        self.plan, self.device = plan, device
        self.mean, self.variance = read_interval("mean", mean), read_interval("variance", variance)
        if self.variance[0] <= 0:
            raise ValueError(f"data.variance={list(variance)} must be above 0")
        facts = {"mean": self.mean, "variance": self.variance}
        self.info = SourceInfo(
            input_shape=(1,),
            n_way=plan.test.n_way,
            outputs=plan.test.n_way,
            objective=objectives.classification,
            split_sha256=hashlib.sha256(repr(facts).encode()).hexdigest(),
            facts=facts,
        )

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Batch]:
        for places in iterate_places(first, batch_size):
            yield self.batch(split, places)

    def batch(self, split: str, indices: Ints) -> Batch:
        """Return the tasks with the numbers `indices` [B] of a split's stream."""
        shape, u = self.plan.shape_of(split), self._draw_numbers(split, indices)
        family = (u[..., 0] * len(FAMILIES)).astype(np.int64)  # [B, N]
        std = np.sqrt(stretch(u[..., 1:2], *self.variance))
        x = stretch(u[..., 2:3], *self.mean) + std * _standard_draws(u[..., 3:], family[..., None])  # [B, N, K + Q]
        sides = []
        for numbers in np.split(x, [shape.k_shot], axis=2):
            y = np.broadcast_to(np.arange(shape.n_way)[:, None], numbers.shape).reshape(len(indices), -1)
            points = to_device(numbers.reshape(*y.shape, 1), self.device, torch.get_default_dtype())
            sides.append(Examples(points, to_device(y.copy(), self.device)))
        support, query = sides
        return Batch(support, query, shape.n_way, {"family": to_device(family, self.device)})

    def fingerprint(self, split: str, n_tasks: int) -> str:
        return hashlib.sha256(self._draw_numbers(split, np.arange(n_tasks)).tobytes()).hexdigest()

    def _draw_numbers(self, split: str, indices: Ints) -> Floats:
        """Draw numbers in [0, 1) for each set: its family, variance and mean, then its members, [B, N, 3 + K + Q]."""
        shape = self.plan.shape_of(split)
        seed = self.plan.seed_of(split)
        numbers = 3 + shape.k_shot + shape.n_query
        u = scale_to_unit(draw_bits(seed, split, indices, shape.n_way * numbers))
        return u.reshape(len(indices), shape.n_way, numbers)


def _standard_draws(u: Floats, family: Ints) -> Floats:
    """Turn numbers in [0, 1) into draws of mean 0 and variance 1 from the families."""
    u = u + 2.0**-54  # the middle of each step of 2^-53
    draws: Floats = np.choose(
        family,
        [
            -np.log1p(-u) - 1,
            ndtri(u),
            np.sqrt(12) * (u - 0.5),
            -np.sign(u - 0.5) * np.log(2 * np.minimum(u, 1 - u)) / np.sqrt(2),
        ],
    )
    return draws
