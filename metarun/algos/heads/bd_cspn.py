from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarun.algos.base.features import FeatureHead, Features
from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import average_classes, find_cosines, measure, multiply
from metarun.core.ranges import NonNegativeInt, PositiveFloat
from metarun.ops.functional import one_hot

TINY = 1e-24
"""The least squared length of a moved query: one that lies at zero is near no class."""


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
    batched = True

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
    """Return the class means [..., N, D] that the queries have pulled towards themselves."""
    shift = support.mean(-2, keepdim=True) - query.mean(-2, keepdim=True)  # [..., 1, D]
    means = F.normalize(average_classes(support, classes), dim=-1)
    # The moved queries are not written out: a copy of most of a task's numbers takes longer than what is done with it.
    along = multiply(query, torch.cat([means, shift], -2))  # [..., M, N + 1]
    squares = measure(query).square() + 2 * along[..., -1:] + shift.square().sum(-1, keepdim=True)  # of the moved ones
    moved_near = (along[..., :-1] + shift @ means.mT) / squares.clamp_min(TINY).sqrt()
    guessed = one_hot(moved_near.max(-1).indices, classes.shape[-1], support.dtype)
    near = torch.cat([find_cosines(support, means), moved_near], -2)  # [..., S + M, N]
    elsewhere = torch.cat([classes, guessed], -2) == 0
    weights = (scale * near).masked_fill(elsewhere, -torch.inf).softmax(-2)  # over the images of a class
    of_support, of_query = (part.mT for part in torch.tensor_split(weights, [support.shape[-2]], -2))
    rectified: Tensor = of_support @ support + of_query @ query + of_query.sum(-1, keepdim=True) * shift
    return rectified
