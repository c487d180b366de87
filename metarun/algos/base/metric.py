from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarun.algos.base.episodic import EpisodicLearner
from metarun.core.tasks import Examples
from metarun.ops import context, norm
from metarun.ops.functional import Params, call, one_hot, within

FEATURES_TOGETHER = 800_000
"""Numbers of the embeddings that run together on a CPU, as measured; more leave its caches."""


class Support(NamedTuple):
    """A task's state: the support set, and a one-hot [S, N] of its labels."""

    x: Tensor
    classes: Tensor


class MetricLearner(EpisodicLearner):
    """A method that embeds the images of a task and compares the queries' embeddings with the support set's.

    Support and query images are embedded in one pass, as ProtoNet's code does, so `bn=transductive` normalises
    by both together. A method writes `compare`.

    Args:
        backbone: from inputs to embeddings [R, D].
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
    """

    def __init__(self, backbone: nn.Module, engine: str, task_chunk: int) -> None:
        super().__init__(engine, task_chunk)
        self.backbone = backbone

    def input_encoder(self) -> Callable[[Tensor], Tensor] | None:
        return self._encode if norm.normalises_rows_alone(self.backbone) else None

    def input_network(self) -> nn.Module:
        return self.backbone

    def prepare_encoded(self, encoded: Tensor) -> Tensor:
        return encoded

    @contextmanager
    def encoded(self) -> Iterator[None]:
        before = self.backbone, self.task_chunk, self.recorder, self.most_numbers
        self.backbone, self.task_chunk, self.recorder = nn.Identity(), 0, None  # the rest is small
        self.most_numbers = FEATURES_TOGETHER
        try:
            yield
        finally:
            self.backbone, self.task_chunk, self.recorder, self.most_numbers = before

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
    """Return the mean embedding of each class [N, D]."""
    return classes.T @ support / classes.sum(0)[:, None]


def find_cosines(query: Tensor, points: Tensor) -> Tensor:
    """Return the cosine [M, N] of each query [M, D] with each point [N, D]."""
    return F.normalize(query, dim=-1) @ F.normalize(points, dim=-1).T


def compute_nearness(query: Tensor, points: Tensor) -> Tensor:
    """Return minus the squared distance [M, N] of each query [M, D] to each point [N, D], multiplied out."""
    return query @ (2 * points).T - query.square().sum(-1, keepdim=True) - points.square().sum(-1)
