from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import MetricLearner, average_classes
from metarun.algos.base.pretraining import Pretraining
from metarun.algos.base.stages import Stage, Staged
from metarun.core.ranges import CountsWith, NonNegativeInt, PositiveFloat, PositiveInt, Share, ShareBelowOne
from metarun.core.tasks import TaskSource
from metarun.ops.functional import Params


class MetaBaseline(Staged, Pretraining, MetricLearner):
    """Learns to tell all training classes apart, then from tasks, by cosine similarity to class means.

    The first outer steps of a run take single images, the others take meta-batches of tasks, with the same optimizer
    and schedule. The second stage also learns the scale of the similarities, as a logarithm.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: from inputs to embeddings [R, D].
        train_classes: classes of the split train.
        steps: outer steps of the run.
        pretraining: share of them in the first stage, in 0..1.
        batch_size: images of an outer step there.
        scale: factor of the cosine similarities to start from, > 0 (tau in the paper).
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
        label_smoothing: part of a training label that is spread over all training classes, in the first stage.
    Reference: Chen, Liu, Xu, Darrell, Wang. Meta-Baseline: Exploring Simple Meta-Learning for Few-Shot Learning.
        ICCV 2021. arXiv:2003.04390, section 3.
    """

    trains_on = ("examples", "episodes")

    def __init__(
        self,
        backbone: nn.Module,
        train_classes: int,
        steps: int,
        pretraining: Share,
        batch_size: Annotated[PositiveInt, CountsWith("pretraining")],
        scale: PositiveFloat,
        engine: Engine,
        task_chunk: NonNegativeInt,
        label_smoothing: ShareBelowOne = 0.0,
    ) -> None:
        super().__init__(backbone, engine, task_chunk)
        self.label_smoothing = label_smoothing
        self.pretraining_steps, self.batch_size = round(pretraining * steps), batch_size
        self.classifier = nn.Linear(int(backbone.out_features), train_classes)  # type: ignore[arg-type]
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def stages(self) -> list[Stage]:
        return [
            Stage(self.pretraining_steps, self._images, partial(Pretraining.meta_loss, self)),
            Stage(
                0,
                partial(MetricLearner.train_stream, self),
                partial(MetricLearner.meta_loss, self),
                partial(MetricLearner.meta_gradient, self),
            ),
        ]

    def compare(self, params: Params, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        means = average_classes(support, classes)
        return params["log_scale"].exp() * normalize(query, dim=-1) @ normalize(means, dim=-1).T

    def _images(self, source: TaskSource, step: int, meta_batch_size: int) -> Iterator[Any]:
        return Pretraining.train_stream(self, source, step, self.batch_size)
