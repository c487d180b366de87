from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import MetricLearner, average_classes, compute_nearness
from metarun.algos.base.pretraining import Pretraining
from metarun.core.ranges import NonNegativeInt
from metarun.ops.functional import Params

FEATURES = ("un", "l2n", "cl2n")
MEAN_MOMENTUM = 0.1


class SimpleShot(Pretraining, MetricLearner):
    """Learns to tell all training classes apart; a query then goes to the nearest class mean of its embedding.

    The embeddings are first left as they are (`un`), scaled to length 1 (`l2n`), or centred by the mean embedding of
    the training images and then scaled (`cl2n`). The paper takes this mean over all training images with the final
    network; here it is a running average over the training batches, with weight 0.1 for the newest.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N], minus squared distances.
    Args:
        backbone: from inputs to embeddings [R, D].
        train_classes: classes of the split train.
        features: `un`, `l2n` or `cl2n`.
        engine, task_chunk: how a batch of tasks is computed, see EpisodicLearner.
    Reference: Wang, Chao, Weinberger, van der Maaten. SimpleShot: Revisiting Nearest-Neighbor Classification for
        Few-Shot Learning. 2019. arXiv:1911.04623, section 3.
    """

    mean: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        train_classes: int,
        features: Literal["un", "l2n", "cl2n"],
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(backbone, engine, task_chunk)
        if features not in FEATURES:
            raise ValueError(f"algo.features={features} is not one of {', '.join(FEATURES)}")
        self.features = features
        size = int(backbone.out_features)  # type: ignore[arg-type]
        self.classifier = nn.Linear(size, train_classes)
        self.register_buffer("mean", torch.zeros(size))
        if features != "cl2n":
            self.only_trained = ("classifier.", "mean")

    def embed(self, x: Tensor) -> Tensor:
        embedded = super().embed(x)
        self.mean.lerp_(embedded.detach().mean(0), MEAN_MOMENTUM)
        return embedded

    def compare(self, params: Params, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        if self.features == "cl2n":
            support, query = support - self.mean, query - self.mean
        if self.features != "un":
            support, query = F.normalize(support, dim=-1), F.normalize(query, dim=-1)
        return compute_nearness(query, average_classes(support, classes))
