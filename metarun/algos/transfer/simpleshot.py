from __future__ import annotations

from torch import Tensor, nn

from metarun.algos.base.features import FeatureHead, Features
from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import average_classes, compute_nearness
from metarun.core.ranges import NonNegativeInt


class SimpleShot(FeatureHead):
    """Learns to tell all training classes apart; a query then goes to the nearest class mean of its embedding.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N], minus squared distances.
    Args:
        backbone: from inputs to embeddings [R, D].
        train_classes: classes of the split train.
        features: of which embeddings, `un`, `l2n` or `cl2n`, see FeatureHead.
        engine, task_chunk: how a batch of tasks is computed, see EpisodicLearner.
    Reference: Wang, Chao, Weinberger, van der Maaten. SimpleShot: Revisiting Nearest-Neighbor Classification for
        Few-Shot Learning. 2019. arXiv:1911.04623, section 3.
    """

    batched = True

    def __init__(
        self, backbone: nn.Module, train_classes: int, features: Features, engine: Engine, task_chunk: NonNegativeInt
    ) -> None:
        super().__init__(backbone, train_classes, features, engine, task_chunk)

    def answer(self, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        return compute_nearness(query, average_classes(support, classes))
