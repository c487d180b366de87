"""Environments that the program simulates: many episodes of many tasks at once, as operations on tensors."""

from __future__ import annotations

import copy
import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarun.core.control import Control, Moved
from metarun.core.episodes import Floats, draw_bits, scale_to_unit
from metarun.core.objectives import no_objective
from metarun.core.tasks import EpisodePlan, SourceInfo
from metarun.data.device import to_device

MOST_EPISODES = 1 << 24
"""Episodes of a task that have random numbers of their own."""


class Stream(NamedTuple):
    """Which random numbers tasks are made of: a seed, a split, and the numbers of the tasks [B]."""

    seed: int
    split: str
    indices: NDArray[np.int64]

    def draw(self, numbers: int) -> Floats:
        """Draw numbers in [0, 1) that define the tasks: [B, numbers]."""
        return scale_to_unit(draw_bits(self.seed, f"{self.split}/environments", self.indices, numbers))

    def draw_episodes(self, name: str, n: int, first: int, numbers: int) -> Floats:
        """Draw numbers in [0, 1) for the episodes first..first+n-1 of each task: [B, n, numbers]."""
        places = self.indices[:, None] * MOST_EPISODES + np.arange(first, first + n)
        bits = draw_bits(self.seed, f"{self.split}/{name}", places.reshape(-1), numbers)
        return scale_to_unit(bits).reshape(*places.shape, numbers)


class Simulation(ABC):
    """B environments of one family, R episodes of each side by side. It meets `Environments` of core/control.py.

    Args:
        control: sizes.
        stream: random numbers of the tasks and of all that happens in them.
        facts: what the tasks differ in, [B, ...] each, by name; attributes of the simulation.
        device: where episodes go on.
    """

    numbers: ClassVar[int] = 0
    """How many random numbers a step takes, and the start of an episode."""

    def __init__(self, control: Control, stream: Stream, facts: Mapping[str, Tensor], device: torch.device) -> None:
        self.control, self.stream, self.device = control, stream, device
        self.facts = dict(facts)
        self.time = control.length

    def __getattr__(self, name: str) -> Tensor:
        facts: Mapping[str, Tensor] = self.__dict__.get("facts", {})
        if name not in facts:
            raise AttributeError(f"{type(self).__name__} has no {name}", name=name, obj=self)
        return facts[name]

    @property
    def n_tasks(self) -> int:
        return len(self.stream.indices)

    def tasks(self, first: int, last: int) -> Self:
        part = copy.copy(self)
        part.stream = self.stream._replace(indices=self.stream.indices[first:last])
        part.facts = {name: fact[first:last] for name, fact in self.facts.items()}
        part.time = self.control.length
        return part

    def draw(self, n: int, episode: int, numbers: int) -> Tensor:
        return self._draw("policy", n, episode, self.control.length, numbers)

    def reset(self, n: int, episode: int) -> Tensor:
        self.chance = self._draw("world", n, episode, self.control.length + 1, self.numbers)
        self.over = torch.zeros(self.n_tasks, n, dtype=torch.bool, device=self.device)
        self.ended = self.over  # not for want of time
        self.time = 0
        return self.begin(n, self.chance[:, :, 0])

    def step(self, actions: Tensor) -> Moved:
        assert self.time < self.control.length, "the episodes are over, or none was started"
        self.time += 1
        observation, reward, done = self.move(actions, self.chance[:, :, self.time])
        reward = torch.where(self.over, 0.0, reward)
        self.ended = self.ended | done
        self.over = self.ended if self.time < self.control.length else torch.ones_like(self.over)
        return Moved(observation, reward, self.over)

    @abstractmethod
    def begin(self, n: int, u: Tensor) -> Tensor:
        """Start n episodes of each task by random numbers u [B, n, numbers]; return observations [B, n, D]."""

    @abstractmethod
    def move(self, actions: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor | bool]:
        """Return observations, rewards, and which episodes reached an end of their own [B, R]."""

    def _draw(self, name: str, n: int, episode: int, steps: int, numbers: int) -> Tensor:
        drawn = self.stream.draw_episodes(name, n, episode, steps * numbers)
        tensor = to_device(drawn, self.device, torch.get_default_dtype())
        return tensor.reshape(self.n_tasks, n, steps, numbers).clamp_max(1 - 2**-24)  # float32 may round up to 1


class SimulatedTasks(ABC):
    """The base class of sources whose tasks are simulated environments. Each split is a stream of its own.

    Args:
        plan: seeds.
        device: where episodes go on.
        control: sizes.
        family: settings that the tasks are drawn from, by name; the hash of the splits is made from them.
    """

    kinds: ClassVar[tuple[str, ...]] = ("control",)

    numbers: int
    """How many random numbers define a task."""

    def __init__(self, plan: EpisodePlan, device: torch.device, control: Control, family: Mapping[str, Any]) -> None:
        self.plan, self.device, self.control = plan, device, control
        facts = {"family": type(self).__name__, **family, "length": control.length, "episodes": control.episodes}
        self.info = SourceInfo(
            input_shape=(control.observation,),
            n_way=0,
            outputs=control.actions,
            objective=no_objective,
            split_sha256=hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest(),
            facts=facts,
            control=control,
        )

    @abstractmethod
    def simulate(self, stream: Stream) -> Simulation:
        """Make the tasks of a stream."""

    def environments(self, split: str, first: int, batch_size: int) -> Iterator[Simulation]:
        for start in itertools.count(first, batch_size):
            yield self.simulate(self.stream(split, np.arange(start, start + batch_size)))

    def fingerprint(self, split: str, n_tasks: int) -> str:
        """Return a hash of the random numbers behind the tasks, which no rounding affects."""
        return hashlib.sha256(self.stream(split, np.arange(n_tasks)).draw(self.numbers).tobytes()).hexdigest()

    def stream(self, split: str, indices: NDArray[np.int64]) -> Stream:
        return Stream(self.plan.seed_of(split), split, indices)

    def tensor(self, array: Floats) -> Tensor:
        """Copy numbers to the device."""
        return to_device(array, self.device, torch.get_default_dtype())
