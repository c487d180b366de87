"""The things that travel between the parts: tensors of tasks, facts of a source, what a learner reports.

Shape letters: B tasks, N ways, K shots, Q queries per class, S = N*K, M = N*Q, C H W image, D embedding.
Where tasks are functions, S = K and M = Q.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor
from torch.optim import Optimizer

Metrics = dict[str, Tensor]
"""Detached scalars of one outer step, by name; `loss` is always there."""

Objective = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""(output, y) of one task -> scalars by name; `loss`, which training descends, is always there."""


class OptimFactory(Protocol):
    """Makes the optimizer that the settings describe; one of another name than `outer` may have settings of its own."""

    def __call__(self, parameters: Iterable[Any], name: str = "outer") -> Optimizer: ...


class Examples(NamedTuple):
    """Inputs and targets of one side of a task.

    Of classes: x [..., C, H, W] float32, y [...] int64 in 0..N-1.
    Of functions: x [..., D_in] float32, y [..., D_out] float32.
    """

    x: Tensor
    y: Tensor


class TaskBatch(Protocol):
    """Tasks that are trained or tested on together, whatever a task is."""

    @property
    def n_tasks(self) -> int: ...

    def tasks(self, first: int, last: int) -> TaskBatch:
        """Tasks first..last-1 of these."""
        ...


class Batch(NamedTuple):
    """Tasks of a meta-batch: support.x [B, S, ...], query.x [B, M, ...], and the number of classes of each.

    `n_way` is a plain int because under vmap it cannot be read off the labels; 0 where tasks are functions. `side` has
    facts of the tasks or their classes, [B, ...] each, such as descriptions of classes [B, N, D].
    """

    support: Examples
    query: Examples
    n_way: int
    side: Mapping[str, Tensor] = MappingProxyType({})

    @property
    def n_tasks(self) -> int:
        return int(self.support.y.shape[0])

    def tasks(self, first: int, last: int) -> Batch:
        """Tasks first..last-1 of this batch."""
        return Batch(
            Examples(self.support.x[first:last], self.support.y[first:last]),
            Examples(self.query.x[first:last], self.query.y[first:last]),
            self.n_way,
            {name: fact[first:last] for name, fact in self.side.items()},
        )


class Prediction(NamedTuple):
    """What is predicted of query points: mean [B, M, D_out], and standard deviation where there is one."""

    mean: Tensor
    std: Tensor | None


@dataclass(frozen=True)
class EpisodeShape:
    """How many classes, support images per class and query images per class a task has.

    Where tasks are functions `n_way` is 0, and the others count points; each meta-batch then draws its own number of
    support points from k_shot to `most_shots`, unless that is None.
    """

    n_way: int
    k_shot: int
    n_query: int
    most_shots: int | None = None


@dataclass(frozen=True)
class EpisodePlan:
    """Which tasks a source yields: shapes for training and for validation and test, and the two seeds.

    Training tasks are keyed by `seed`, validation and test tasks by `eval_seed` alone, so that they are
    the same for every algorithm and every training seed. Of `splits` tasks are drawn; they alone have to hold
    enough classes and images for them.
    """

    train: EpisodeShape
    test: EpisodeShape
    seed: int
    eval_seed: int
    splits: tuple[str, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class SourceInfo:
    """What the rest of the program must know of a source.

    Attributes:
        input_shape: shape of one input, C, H, W for images.
        n_way: classes of a validation or test task; 0 where tasks are functions.
        outputs: size of a network's last layer: n_way for classes, D_out for functions.
        objective: what outputs are scored by.
        split_sha256: hash of what the tasks of the three splits are made of, such as their class lists.
        facts: anything else that makes a run's data recognisable, such as the hash of the first image.
        train_classes: classes of the split train where the source is an ExampleSource, else None.
        prior: what functions are drawn from, where it is known and Gaussian: a Prior of ops/gaussian_process.py.
        normalisation: mean and std, each of every channel or of all, by which inputs were made of pixels in 0..1: the
            pixel less the mean over the std. None where inputs are no images, or not all are made alike.
    """

    input_shape: tuple[int, ...]
    n_way: int
    outputs: int
    objective: Objective
    split_sha256: str
    facts: dict[str, Any]
    train_classes: int | None = None
    prior: object | None = None
    normalisation: tuple[Sequence[float], Sequence[float]] | None = None


class TaskSource(Protocol):
    """A data set as an endless, restartable stream of tasks for each of the splits train, val and test."""

    info: SourceInfo

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Batch]:
        """Tasks first, first + 1, ... of a split's stream, `batch_size` at a time, for ever."""
        ...

    def fingerprint(self, split: str, n_tasks: int) -> str:
        """A hash of which examples the first `n_tasks` tasks of a split hold."""
        ...


@runtime_checkable
class EmbeddableSource(TaskSource, Protocol):
    """A source that can hand over embeddings of its inputs in their place."""

    def embedded(self, split: str, encode: Callable[[Tensor], Tensor], n_tasks: int) -> TaskSource | None:
        """The tasks of a split with `encode` of each input; None if that does not pay for the first `n_tasks`."""
        ...


@runtime_checkable
class ExampleSource(TaskSource, Protocol):
    """A source that also yields single labelled examples, for methods that learn to tell all training classes apart."""

    def examples(self, split: str, first: int, batch_size: int) -> Iterator[Examples]:
        """Examples first, first + 1, ... of a split, `batch_size` at a time, for ever: x [R, ...], y [R] classes.

        Every example comes once before any comes again; `y` is in 0..train_classes-1 on the split train.
        """
        ...
