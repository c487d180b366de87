"""The types that pass between the parts of the program: tensors of tasks, facts of a source, reports of a learner.

Shape letters: B tasks, N ways, K shots, Q queries per class, S = N*K, M = N*Q, C H W image, D embedding.
If tasks are functions, S = K and M = Q.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor
from torch.optim import Optimizer

from metarun.core.control import Control, Environments

Metrics = dict[str, Tensor]
"""Detached scalars of one outer step, by name; `loss` is always there."""

Objective = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""(output, y) of one task -> scalars by name. `loss`, which training descends, is always among them."""


class OptimFactory(Protocol):
    """Makes an optimizer by the settings. An optimizer with another name than `outer` may have its own settings."""

    def __call__(self, parameters: Iterable[Any], name: str = "outer") -> Optimizer: ...


class Examples(NamedTuple):
    """Inputs and targets of the support or the query set of a task.

    For classes: x [..., C, H, W] float32, y [...] int64 in 0..N-1.
    For functions: x [..., D_in] float32, y [..., D_out] float32.
    """

    x: Tensor
    y: Tensor


class Pairs(NamedTuple):
    """Labelled examples of one domain, and as many inputs of another domain, without labels."""

    source: Examples
    target: Tensor


class TaskBatch(Protocol):
    """Tasks that a learner is trained or tested on together, of any kind."""

    @property
    def n_tasks(self) -> int: ...

    def tasks(self, first: int, last: int) -> TaskBatch:
        """Return the tasks first..last-1 of this batch."""


class Batch(NamedTuple):
    """Tasks of a meta-batch: support.x [B, S, ...], query.x [B, M, ...], and the number of classes of each.

    `n_way` is a plain int because it cannot be read off the labels under vmap; it is 0 if tasks are functions. `side`
    holds facts about the tasks or their classes, [B, ...] each, such as descriptions of classes [B, N, D].
    """

    support: Examples
    query: Examples
    n_way: int
    side: Mapping[str, Tensor] = MappingProxyType({})

    @property
    def n_tasks(self) -> int:
        return int(self.support.y.shape[0])

    def tasks(self, first: int, last: int) -> Batch:
        """Return the tasks first..last-1 of this batch."""
        support, query = (Examples(side.x[first:last], side.y[first:last]) for side in (self.support, self.query))
        return Batch(support, query, self.n_way, {name: fact[first:last] for name, fact in self.side.items()})

    def facts(self, task: int) -> dict[str, Tensor]:
        """Return what `side` holds about one task."""
        return {name: fact[task] for name, fact in self.side.items()}


class Prediction(NamedTuple):
    """Predictions for query points: the mean [B, M, D_out], and the standard deviation if the learner predicts one."""

    mean: Tensor
    std: Tensor | None


@dataclass(frozen=True)
class EpisodeShape:
    """The numbers of classes, of support images per class and of query images per class of a task.

    If tasks are functions, `n_way` is 0 and the others count points. Each meta-batch then draws its own number of
    support points from k_shot..most_shots, unless `most_shots` is None. All are 0 if tasks are environments.

    With `alpha`, a task of classes has n_way * n_query query images in all, and the shares of its classes are drawn
    from a Dirichlet distribution whose parameters are all alpha, > 0. If it is None, all classes have as many.

    With `most_ways`, each task draws its own number of classes from n_way..most_ways. With `by_size`, its classes have
    numbers of support images that grow with their sizes, `k_shot` at least, and at most n_query query images. Tasks
    then have many shapes, see episode_shapes.py.
    """

    n_way: int
    k_shot: int
    n_query: int
    most_shots: int | None = None
    alpha: float | None = None
    most_ways: int | None = None
    by_size: bool = False

    @property
    def most_queries(self) -> int:
        """The most query images that a class may have."""
        return self.n_query if self.alpha is None else self.n_way * self.n_query

    @property
    def least_images(self) -> int:
        """The images that a class needs at least."""
        return self.k_shot + (1 if self.by_size else self.most_queries)

    @property
    def varies(self) -> bool:
        """Whether tasks of classes have many shapes."""
        return self.most_ways is not None or self.by_size


@dataclass(frozen=True)
class EpisodePlan:
    """The tasks that a source yields: their shapes in training and in validation and test, and the two seeds.

    Training tasks depend on `seed`. Validation and test tasks depend on `eval_seed` alone, so they are the same for
    every algorithm and every training seed. Tasks are drawn from `splits`; only these need enough classes and images.
    """

    train: EpisodeShape
    test: EpisodeShape
    seed: int
    eval_seed: int
    splits: tuple[str, ...] = ("train", "val", "test")

    def shape_of(self, split: str) -> EpisodeShape:
        return self.train if split == "train" else self.test

    def seed_of(self, split: str) -> int:
        return self.seed if split == "train" else self.eval_seed


@dataclass(frozen=True)
class SourceInfo:
    """Facts about a source that the rest of the program needs.

    Attributes:
        input_shape: shape of one input; C, H, W for images.
        n_way: classes of a validation or test task; 0 if tasks are functions.
        outputs: size of a network's last layer: n_way for classes, D_out for functions.
        objective: scores the outputs of a network.
        split_sha256: hash of the contents of the three splits, such as their class lists.
        facts: anything else that identifies a run's data, such as the hash of the first image.
        train_classes: number of classes of the split train if the source is an ExampleSource, else None.
        prior: the Gaussian process that functions are drawn from, if it is known: a Prior of ops/gaussian_process.py.
        normalisation: mean and std of pixels in 0..1, for each channel or all together; None of no images, or several.
        control: what a policy must know, if tasks are environments.
        support_shape: shape of one input of a support set; None if it is `input_shape`.
        support_scale: mean and std, over training classes, of descriptions as support set; 4 more inputs tell a turn.
        domains: of training, where each task is of one; `side["domain"]` [B] has their numbers 0..domains-1.
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
    control: Control | None = None
    support_shape: tuple[int, ...] | None = None
    support_scale: tuple[Sequence[float], Sequence[float]] | None = None
    domains: int | None = None


class TaskSource(Protocol):
    """A data set as an endless, restartable stream of tasks for each of the splits train, val and test."""

    info: SourceInfo

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Batch]:
        """Yield the tasks first, first + 1, ... of a split's stream, `batch_size` at a time, for ever."""
        ...

    def fingerprint(self, split: str, n_tasks: int) -> str:
        """Return a hash of which examples the first `n_tasks` tasks of a split hold."""
        ...


@runtime_checkable
class EnvironmentSource(Protocol):
    """A source whose tasks are environments."""

    info: SourceInfo

    def environments(self, split: str, first: int, batch_size: int) -> Iterator[Environments]:
        """Yield the tasks first, first + 1, ... of a split's stream, `batch_size` at a time, for ever."""
        ...

    def fingerprint(self, split: str, n_tasks: int) -> str:
        """Return a hash of the first `n_tasks` tasks of a split."""
        ...


@runtime_checkable
class EmbeddableSource(TaskSource, Protocol):
    """A source that can embed its inputs once and yield the embeddings in their place."""

    def embedded(self, split: str, encode: Callable[[Tensor], Tensor], n_tasks: int) -> TaskSource | None:
        """Return a source of the same tasks with each input embedded by `encode`.

        Returns: None if that does not pay for the first `n_tasks` tasks of the split.
        """
        ...


@runtime_checkable
class ExampleSource(TaskSource, Protocol):
    """A source that also yields single labelled examples, for methods that train a classifier of all classes."""

    def examples(self, split: str, first: int, batch_size: int) -> Iterator[Examples]:
        """Yield the examples first, first + 1, ... of a split, `batch_size` at a time, for ever: x [R, ...], y [R].

        Every example comes once before any comes again. On the split train, y is in 0..train_classes-1.
        """
        ...


@runtime_checkable
class PairSource(TaskSource, Protocol):
    """A source of two domains, of which one has no labels in training."""

    def pairs(self, split: str, first: int, batch_size: int) -> Iterator[Pairs]:
        """Yield the pairs first, first + 1, ... of a split, `batch_size` at a time, for ever.

        Every example of a domain comes once before any comes again. On the split train, y is in 0..train_classes-1.
        """
        ...
