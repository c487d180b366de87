from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from metarun.algos.base.features import FeatureHead
from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import average_classes, find_cosines
from metarun.core.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat

Lengths = Literal["l2n", "cl2n"]


class TipAdapter(FeatureHead):
    """Learns to tell all training classes apart; a query then asks the class means and each support image, softly.

    The logits are `scale` times the cosines to the class means, plus `alpha` times a vote of the support images: each
    speaks for its class with exp(-beta (1 - cosine)). The class means stand where the paper has CLIP's embeddings of
    the classes' names. With `alpha` 0 the means decide, with a large `beta` the nearest support image. The paper's
    repository once chose both on test images: `metarun eval RUN algo=tip_adapter algo.alpha=0.5,1,5 --choose` chooses
    on validation tasks.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: from inputs to embeddings [R, D].
        train_classes: classes of the split train.
        scale: of the cosines to the class means, > 0 (CLIP's is 100).
        alpha: weight of the support images' votes.
        beta: how fast a vote falls with the distance, > 0.
        features: of which embeddings, `l2n` or `cl2n`, see FeatureHead: cosines know no lengths.
        engine, task_chunk: how a batch of tasks is computed, see EpisodicLearner.
    Reference: Zhang et al. Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification. ECCV 2022.
        arXiv:2207.09519, equations 4 to 6.
    """

    batched = True

    def __init__(
        self,
        backbone: nn.Module,
        train_classes: int,
        scale: PositiveFloat,
        alpha: NonNegativeFloat,
        beta: PositiveFloat,
        features: Lengths,
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(backbone, train_classes, features, engine, task_chunk)
        self.scale, self.alpha, self.beta = scale, alpha, beta

    def list_features(self) -> tuple[str, ...]:
        return get_args(Lengths)

    def answer(self, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        means = average_classes(support, classes)
        votes = (-self.beta * (1 - find_cosines(query, support))).exp() @ classes  # [M, N], equation 4
        return self.scale * find_cosines(query, means) + self.alpha * votes  # equation 6
