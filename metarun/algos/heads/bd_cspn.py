from __future__ import annotations

import torch
from torch import Tensor, nn

from metarun.algos.base.features import FeatureHead, Features
from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import average_classes, find_cosines
from metarun.core.ranges import NonNegativeInt, PositiveFloat
from metarun.ops.functional import one_hot


class BDCSPN(FeatureHead):
    """Learns to tell all training classes apart; a task's queries then pull the class means towards themselves.

    The queries are moved so that their mean is the support set's, and each gets the class of the nearest mean. A class
    is then the mean of its support images and of these queries, weighted by exp(scale * cosine to the old mean). The
    queries as they were, not moved, go to the class of the highest cosine.

    All queries count, where the paper takes the eight surest of each class. The paper's scale is 10; easyfsl's is 1.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N], `scale` times cosines.
    Args:
        backbone: from inputs to embeddings [R, D].
        train_classes: classes of the split train.
        scale: of the cosines, > 0 (epsilon in the paper). A large one leaves a single support image as it is.
        features: of which embeddings, `un`, `l2n` or `cl2n`, see FeatureHead.
        engine, task_chunk: how a batch of tasks is computed, see EpisodicLearner.
    Reference: Liu, Song, Qin. Prototype Rectification for Few-Shot Learning. ECCV 2020. arXiv:1911.10713, section 3.2.
    """

    answers = "together"

    def __init__(
        self,
        backbone: nn.Module,
        train_classes: int,
        scale: PositiveFloat,
        features: Features,
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(backbone, train_classes, features, engine, task_chunk)
        self.scale = scale

    def answer(self, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        return self.scale * find_cosines(query, rectify(support, classes, query, self.scale))


def rectify(support: Tensor, classes: Tensor, query: Tensor, scale: float) -> Tensor:
    """Return the class means [N, D] that the queries have pulled towards themselves."""
    moved = query + support.mean(0) - query.mean(0)
    near = find_cosines(torch.cat([support, moved]), average_classes(support, classes))  # [S + M, N]
    guessed = one_hot(near[support.shape[0] :].argmax(-1), classes.shape[-1], support.dtype)
    elsewhere = torch.cat([classes, guessed]) == 0
    weights = (scale * near).masked_fill(elsewhere, -torch.inf).softmax(0)  # over the images of a class
    return weights.T @ torch.cat([support, moved])
