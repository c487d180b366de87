from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from metarun.core import objectives
from metarun.core.episodes import Floats, Ints, draw_bits, draw_examples, iterate_places, scale_to_unit
from metarun.core.ranges import NonNegativeFloat, PositiveInt
from metarun.core.tasks import Batch, EpisodePlan, SourceInfo
from metarun.data.device import to_device
from metarun.data.moons import count_points, draw_points, make_moons


class TurnedMoons:
    """Two moons at several angles, each angle a domain: training has all but the last, tests are of the last.

    Task number i is of training domain i mod D; in tests its query points are of the domain left out. Which moon a
    point lies on is its class. Training tasks are drawn from a fixed number of points of each domain, others are new
    points. `side["domain"]` is the number of the domain that the support points are of.

    Args:
        plan, device: from the runner.
        points: training points of each domain, half on each moon.
        noise: standard deviation of what is added to both coordinates, >= 0.
        angles: degrees to the left, at least three, no two alike.
    Raises: ValueError for other angles.
    Reference: two moons as domains, Ganin et al. JMLR 2016. arXiv:1505.07818, section 5.1.1; one of several angles left
        out as with rotated MNIST, Ghifary et al. ICCV 2015. arXiv:1508.07680, section 5.1.
    """

    kinds = ("domain generalisation",)

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        points: PositiveInt,
        noise: NonNegativeFloat,
        angles: Sequence[float],
    ) -> None:
        if len(angles) < 3 or len({angle % 360 for angle in angles}) < len(angles):
            raise ValueError(f"data.angles={list(angles)} are not three or more different angles")
        self.plan, self.device, self.n_points, self.noise = plan, device, points, noise
        self.angles = np.array(angles, np.float64)
        self.domains = len(angles) - 1
        facts = {"points": points, "noise": noise, "angles": self.angles.tolist()}
        self.info = SourceInfo(
            input_shape=(2,),
            n_way=2,
            outputs=2,
            objective=objectives.classification,
            split_sha256=hashlib.sha256(repr(facts).encode()).hexdigest(),
            facts=facts,
            domains=self.domains,
        )

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Batch]:
        for places in iterate_places(first, batch_size):
            yield self.batch(split, places)

    def batch(self, split: str, indices: Ints) -> Batch:
        """Return the tasks with the numbers `indices` [B] of a split's stream."""
        shape, domain = self.plan.shape_of(split), indices % self.domains
        u = np.split(self._draw_numbers(split, indices), [2 * shape.k_shot], axis=1)  # [B, S, 3] and [B, M, 3]
        asked = np.full_like(domain, self.domains) if split == "test" else domain
        support, query = (
            make_moons(numbers, self.noise, self.angles[of], self.device)
            for numbers, of in zip(u, (domain, asked), strict=True)
        )
        return Batch(support, query, 2, {"domain": to_device(domain, self.device)})

    def fingerprint(self, split: str, n_tasks: int) -> str:
        return hashlib.sha256(self._draw_numbers(split, np.arange(n_tasks)).tobytes()).hexdigest()

    def _draw_numbers(self, split: str, indices: Ints) -> Floats:
        """Draw numbers in [0, 1) for each point of a task: its place on the moon, and noise, [B, S + M, 3]."""
        if split != "train":
            return draw_points(self.plan, split, indices)
        seed, points, half = self.plan.seed_of(split), count_points(self.plan.shape_of(split)), self.n_points // 2
        every = scale_to_unit(draw_bits(seed, split, np.arange(self.domains * 2 * half), 3))
        every = every.reshape(self.domains, half, 2, 3)  # [domains, points of a moon, moons, 3]
        visit, domain = np.divmod(indices, self.domains)
        places = visit[:, None] * (points // 2) + np.arange(points // 2)  # [B, R / 2], in the domain's own order
        numbers = [
            every[d, draw_examples(seed, f"{split}/order/{d}", own, half)].reshape(points, 3)
            for d, own in zip(domain, places, strict=True)
        ]
        return np.stack(numbers)
