"""The things that travel between the parts: tensors of tasks, facts of a source, what a learner reports.

Shape letters: B tasks, N ways, K shots, Q queries per class, S = N*K, M = N*Q, C H W image, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor
from torch.optim import Optimizer

Metrics = dict[str, Tensor]
"""Detached scalars of one outer step, by name; `loss` is always there."""

OptimFactory = Callable[[Iterable[Any]], Optimizer]
"""An optimizer that still lacks its parameters."""


class Examples(NamedTuple):
    """Inputs and targets of one side of a task: x [..., C, H, W] float32, y [...] int64 in 0..N-1."""

    x: Tensor
    y: Tensor


class Batch(NamedTuple):
    """Tasks of a meta-batch: support.x [B, S, C, H, W], query.x [B, M, C, H, W], and the number of classes of each.

    `n_way` is a plain int because under vmap it cannot be read off the labels.
    """

    support: Examples
    query: Examples
    n_way: int

    @property
    def n_tasks(self) -> int:
        return int(self.support.y.shape[0])

    def tasks(self, first: int, last: int) -> Batch:
        """Tasks first..last-1 of this batch."""
        return Batch(
            Examples(self.support.x[first:last], self.support.y[first:last]),
            Examples(self.query.x[first:last], self.query.y[first:last]),
            self.n_way,
        )


@dataclass(frozen=True)
class EpisodeShape:
    """How many classes, support images per class and query images per class a task has."""

    n_way: int
    k_shot: int
    n_query: int


@dataclass(frozen=True)
class EpisodePlan:
    """Which tasks a source yields: shapes for training and for validation and test, and the two seeds.

    Training tasks are keyed by `seed`, validation and test tasks by `eval_seed` alone, so that they are
    the same for every algorithm and every training seed.
    """

    train: EpisodeShape
    test: EpisodeShape
    seed: int
    eval_seed: int


@dataclass(frozen=True)
class SourceInfo:
    """What the rest of the program must know of a source.

    Attributes:
        input_shape: shape of one input, C, H, W for images.
        n_way: classes of a validation or test task; the size of a classification head.
        split_sha256: hash of the class lists of all three splits.
        facts: anything else that makes a run's data recognisable, such as the hash of the first image.
    """

    input_shape: tuple[int, ...]
    n_way: int
    split_sha256: str
    facts: dict[str, Any]


class TaskSource(Protocol):
    """A data set as an endless, restartable stream of tasks for each of the splits train, val and test."""

    info: SourceInfo

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Batch]:
        """Tasks first, first + 1, ... of a split's stream, `batch_size` at a time, for ever."""
        ...

    def fingerprint(self, split: str, n_tasks: int) -> str:
        """A hash of which examples the first `n_tasks` tasks of a split hold."""
        ...
