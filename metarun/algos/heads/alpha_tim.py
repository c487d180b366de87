from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from metarun.algos.base.features import Features
from metarun.algos.base.learn2learn import Engine
from metarun.algos.heads.tim import TIM, TINY
from metarun.core.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat


class AlphaTIM(TIM):
    """Learns to tell all training classes apart; TIM that does not ask for equally full classes so hard.

    Tsallis' entropies of order `order` take the place of Shannon's for the queries, which they are in the limit of
    order 1. The marginal one falls slower where classes are unequally full. The support set has its cross-entropy, as
    in the authors' settings; that of order alpha in their code falls without limit where the true class loses all.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N], see TIM.
    Args:
        backbone: from inputs to embeddings [R, D].
        train_classes: classes of the split train.
        order: of the entropies, > 0 (alpha in the paper, there 2 for one shot, 7 for five).
        inner_lr, test_inner_steps, temperature, distance: see TIM.
        support_weight, marginal_weight, conditional_weight: see TIM.
        features: of which embeddings, `un`, `l2n` or `cl2n`, see FeatureHead.
        engine, task_chunk: how a batch of tasks is computed, see EpisodicLearner.
    Reference: Veilleux, Boudiaf, Piantanida, Ben Ayed. Realistic Evaluation of Transductive Few-Shot Learning. NeurIPS
        2021. arXiv:2204.11181, equation 5.
    """

    answers = "together"

    def __init__(
        self,
        backbone: nn.Module,
        train_classes: int,
        order: PositiveFloat,
        inner_lr: PositiveFloat,
        test_inner_steps: NonNegativeInt,
        temperature: PositiveFloat,
        distance: Literal["euclidean", "cosine"],
        support_weight: NonNegativeFloat,
        marginal_weight: NonNegativeFloat,
        conditional_weight: NonNegativeFloat,
        features: Features,
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(
            backbone, train_classes, inner_lr, test_inner_steps, temperature, distance, support_weight,
            marginal_weight, conditional_weight, features, engine, task_chunk,
        )  # fmt: skip
        if order == 1:
            raise ValueError("algo.order=1 is Shannon's entropy: set algo=tim")
        self.order = order

    def entropy_slope(self, shares: Tensor) -> Tensor:
        return -self.order / (self.order - 1) * (shares + TINY).pow(self.order - 1)
