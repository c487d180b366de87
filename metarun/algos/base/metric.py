from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarun.algos.base.episodic import EpisodicLearner
from metarun.algos.base.scored import Scored
from metarun.core.batches import MixedBatch, change_batches, list_batches
from metarun.core.tasks import Batch, EmbeddableSource, Examples, Metrics, TaskSource
from metarun.ops import context, norm
from metarun.ops.freezing import freeze
from metarun.ops.functional import Params, call, one_hot, within

FEATURES_TOGETHER = {"vmap": 800_000, "batched": 2_000_000}
"""Numbers of the embeddings that run together on a CPU, as measured; more leave its caches."""

ALL_IMAGES = 2**40
"""Tasks that training may draw: embedding each training image once always pays."""

EMBEDDED = "embedded"
"""The fact about training tasks that their inputs are embeddings."""


class Support(NamedTuple):
    """A task's state: the support set, and a one-hot [S, N] of its labels."""

    x: Tensor
    classes: Tensor


class MetricLearner(EpisodicLearner):
    """A method that embeds the images of a task and compares the queries' embeddings with the support set's.

    Support and query images are embedded in one pass, as ProtoNet's code does, so `bn=transductive` normalises
    by both together. A method writes `compare`. Where all images are embedded already, tasks run together by vmap, or
    in a third of the time as they are, if the method's code lets tensors have a first dimension of tasks.

    A backbone that has nothing to learn stays as in tests. Where images come without augmentation, those of training
    are then embedded once too, unless a method has a gradient of its own.

    Args:
        backbone: from inputs to embeddings [R, D].
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
    """

    batched = False
    """Whether `compare` takes many tasks too: [B, S, D], [B, S, N] and [B, M, D], and returns [B, M, N]. Each class
    declares it anew, because a subclass may differ."""

    def __init__(self, backbone: nn.Module, engine: str, task_chunk: int) -> None:
        super().__init__(engine, task_chunk)
        self.backbone = backbone

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if not self._learns_network():
            self.backbone.eval()
        return self

    def hold_network(self) -> None:
        """As `HoldsNetwork`."""
        if self._has_plain_gradient() and self.input_encoder():
            freeze(self.backbone)

    def input_encoder(self) -> Callable[[Tensor], Tensor] | None:
        """As `EncodesInputs`. A class that writes `adapt` or `predict` states it anew if they take embedded inputs."""
        alone = norm.normalises_rows_alone(self.backbone) and is_stated_of(self, "input_encoder", "adapt", "predict")
        return self._encode if alone else None

    def input_network(self) -> nn.Module:
        return self.backbone

    def prepare_encoded(self, encoded: Tensor) -> Tensor:
        return encoded

    @contextmanager
    def encoded(self) -> Iterator[None]:
        before = self.backbone, self.task_chunk, self.recorder, self.most_numbers
        self.backbone, self.task_chunk, self.recorder = nn.Identity(), 0, None  # the rest is small
        self.most_numbers = FEATURES_TOGETHER["batched" if self._is_batched() else "vmap"]
        try:
            yield
        finally:
            self.backbone, self.task_chunk, self.recorder, self.most_numbers = before

    def train_stream(self, source: TaskSource, step: int, meta_batch_size: int) -> Iterator[Any]:
        tasks = self._embed_training(source)
        if tasks is None:
            return super().train_stream(source, step, meta_batch_size)
        stream = tasks.episodes("train", step * meta_batch_size, meta_batch_size)
        return (change_batches(batch, mark_embedded) for batch in stream)

    def meta_gradient(self, batch: Batch | MixedBatch) -> Metrics:
        embedded = EMBEDDED in list_batches(batch)[0].side
        with self.encoded() if embedded else nullcontext():
            return super().meta_gradient(batch)

    def _embed_training(self, source: TaskSource) -> TaskSource | None:
        """Return the training tasks with each image embedded once; None where that would not be the same."""
        augmented = getattr(getattr(source, "look", None), "augment", "none") != "none"
        if augmented or self._learns_network() or not self._has_plain_gradient():
            return None
        encode = self.input_encoder()
        if encode is None or not isinstance(source, EmbeddableSource):
            return None
        return source.embedded("train", lambda x: self.prepare_encoded(encode(x)), ALL_IMAGES)

    def _learns_network(self) -> bool:
        return any(True for _ in self.backbone.parameters())

    def _has_plain_gradient(self) -> bool:
        return type(self).meta_gradient is MetricLearner.meta_gradient

    def _score_together(self, params: Params, batch: Batch) -> Scored:
        if self._is_batched() and isinstance(self.backbone, nn.Identity):
            return self._score_task(params, batch.support, batch.query, batch.n_way, **self._choose(batch.side))
        return super()._score_together(params, batch)

    def _is_batched(self) -> bool:
        declared: bool = vars(type(self)).get("batched", False)  # not inherited
        return declared

    @torch.no_grad()
    def _encode(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.backbone(x)
        return embedded

    @abstractmethod
    def compare(self, params: Params, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        """Return logits [M, N] for embedded queries [M, D], by the embedded support set [S, D] and one-hot [S, N]."""

    def adapt(self, params: Params, support: Examples, n_way: int) -> Support:
        return Support(support.x, one_hot(support.y, n_way, support.x.dtype))

    def predict(self, params: Params, state: Support, x: Tensor) -> Tensor:
        support, query = embed_together(self.backbone, within(params, "backbone"), state.x, x)
        return self.compare(params, support, state.classes, query)


def mark_embedded(batch: Batch) -> Batch:
    """Return the tasks with the fact that their inputs are embeddings."""
    return batch._replace(side={**batch.side, EMBEDDED: torch.ones(batch.n_tasks)})


def is_stated_of(learner: nn.Module, promise: str, *code: str) -> bool:
    """Return whether what the class states by the method `promise` is of its own `code`, not of that of a base alone.

    A subclass that writes such methods anew and not the promise is promised nothing.
    """
    last = next(names for one in type(learner).__mro__ if not {promise, *code}.isdisjoint(names := vars(one)))
    return promise in last


def embed_together(backbone: nn.Module, params: Params, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Embed support and query inputs in one pass: [S, D] and [M, D].

    `bn=transductive` normalises by both together, and `bn=support` by the support inputs alone.
    """
    if isinstance(backbone, nn.Identity):  # they are embedded already, and copying them takes longer than most heads
        return support, query
    rows = support.shape[0]
    with context.support_rows(rows):
        embedded = call(backbone, params, torch.cat([support, query]))
    return embedded[:rows], embedded[rows:]


def average_classes(support: Tensor, classes: Tensor) -> Tensor:
    """Return the mean embedding of each class [..., N, D]."""
    return classes.mT @ support / classes.sum(-2)[..., None]


def find_cosines(query: Tensor, points: Tensor) -> Tensor:
    """Return the cosine [..., M, N] of each query [..., M, D] with each point [..., N, D]."""
    points = F.normalize(points, dim=-1)
    if query.ndim > 2:
        return multiply(query, points) / measure(query).clamp_min(1e-12)
    return multiply(F.normalize(query, dim=-1), points)


def compute_nearness(query: Tensor, points: Tensor) -> Tensor:
    """Return minus the squared distance [..., M, N] of queries [..., M, D] to points [..., N, D], multiplied out."""
    squares = measure(query).square() if query.ndim > 2 else query.square().sum(-1, keepdim=True)
    return multiply(query, 2 * points) - squares - points.square().sum(-1)[..., None, :]


def multiply(query: Tensor, points: Tensor) -> Tensor:
    """Return the products [..., M, N] of each query [..., M, D] with each point [..., N, D].

    Those of many tasks are computed the other way round, which takes half the time where points are few.
    """
    return (points @ query.mT).mT if query.ndim > 2 else query @ points.mT


def measure(query: Tensor) -> Tensor:
    """Return the lengths [..., M, 1] of queries [..., M, D], without a copy of their numbers."""
    lengths: Tensor = torch.linalg.vector_norm(query, dim=-1, keepdim=True)
    return lengths
