from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarun.algos.base.metric import MetricLearner, is_stated_of
from metarun.algos.base.pretraining import Pretraining
from metarun.ops.functional import Params

Features = Literal["un", "l2n", "cl2n"]
MEAN_MOMENTUM = 0.1


class FeatureHead(Pretraining, MetricLearner):
    """A method that learns to tell all training classes apart, and makes each task a head on the embeddings.

    The embeddings are first left as they are (`un`), scaled to length 1 (`l2n`), or centred by the mean embedding of
    the training images and then scaled (`cl2n`). SimpleShot's paper takes this mean over all training images with the
    final network; here it is a running average over the training batches, with weight 0.1 for the newest.

    A method writes `answer`. It trains nothing of the head, so `metarun eval RUN algo=METHOD` tries it on any trained
    backbone.

    Args:
        backbone: from inputs to embeddings [R, D].
        train_classes: classes of the split train.
        features: `un`, `l2n` or `cl2n`.
        engine, task_chunk: how a batch of tasks is computed, see EpisodicLearner.
    """

    mean: Tensor

    def __init__(self, backbone: nn.Module, train_classes: int, features: str, engine: str, task_chunk: int) -> None:
        super().__init__(backbone, engine, task_chunk)
        if features not in (known := self.list_features()):
            raise ValueError(f"algo.features={features} is not one of {', '.join(known)}")
        self.features, self.prepared = features, False
        size = int(backbone.out_features)  # type: ignore[arg-type]
        self.classifier = nn.Linear(size, train_classes)
        self.register_buffer("mean", torch.zeros(size))
        if features != "cl2n":
            self.only_trained = ("classifier.", "mean")

    def list_features(self) -> tuple[str, ...]:
        return get_args(Features)

    def embed(self, x: Tensor) -> Tensor:
        embedded = super().embed(x)
        self.mean.lerp_(embedded.detach().mean(0), MEAN_MOMENTUM)
        return embedded

    def prepares_alone(self) -> bool:
        """Return whether `prepare` does with each embedding the same, whatever others there are.

        A class that writes `prepare` states it anew.
        """
        return is_stated_of(self, "prepares_alone", "prepare")

    def prepare(self, embedded: Tensor) -> Tensor:
        """Centre and scale the embeddings of support images or of queries [R, D]."""
        if self.features == "cl2n":
            embedded = embedded - self.mean
        return embedded if self.features == "un" else F.normalize(embedded, dim=-1)

    def prepare_encoded(self, encoded: Tensor) -> Tensor:
        return self.prepare(encoded) if self.prepares_alone() else encoded

    @contextmanager
    def encoded(self) -> Iterator[None]:
        with super().encoded():
            self.prepared = self.prepares_alone()
            try:
                yield
            finally:
                self.prepared = False

    def compare(self, params: Params, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        if self.prepared:
            return self.answer(support, classes, query)
        return self.answer(self.prepare(support), classes, self.prepare(query))

    @abstractmethod
    def answer(self, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        """Return logits [M, N] for prepared queries [M, D], by the prepared support set [S, D] and one-hot [S, N]."""
