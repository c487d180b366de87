from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn

from metarun.algos.heads.tim import TIM, TINY, TIMSettings
from metarun.core.ranges import PositiveFloat


class AlphaTIM(TIM):
    """Learns to tell all training classes apart; TIM that asks less strictly for equally full classes.

    Tsallis' entropies of order `order` take the place of Shannon's for the queries, which they are in the limit of
    order 1. The marginal one falls slower where classes are unequally full. The support set has its cross-entropy, as
    in the authors' settings; that of order alpha in their code falls without limit where the true class loses all.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N], see TIM.
    Args:
        backbone: from inputs to embeddings [R, D].
        train_classes: classes of the split train.
        order: of the entropies, > 0 (alpha in the paper, there 2 for one shot, 7 for five).
        settings: see TIM.
    Reference: Veilleux, Boudiaf, Piantanida, Ben Ayed. Realistic Evaluation of Transductive Few-Shot Learning. NeurIPS
        2021. arXiv:2204.11181, equation 5.
    """

    answers = "together"
    batched = True

    def __init__(
        self, backbone: nn.Module, train_classes: int, order: PositiveFloat, **settings: Unpack[TIMSettings]
    ) -> None:
        super().__init__(backbone, train_classes, **settings)
        if order == 1:
            raise ValueError("algo.order=1 is Shannon's entropy: set algo=tim")
        self.order = order

    def entropy_slope(self, shares: Tensor) -> Tensor:
        return -self.order / (self.order - 1) * (shares + TINY).pow(self.order - 1)
