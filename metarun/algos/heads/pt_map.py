from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarun.algos.base.features import FeatureHead
from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import average_classes, compute_nearness
from metarun.core.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from metarun.ops.functional import softmax
from metarun.ops.transport import balance_columns

PowerFeatures = Literal["un", "l2n", "centred"]


class PTMAP(FeatureHead):
    """Learns to tell all training classes apart; queries are shared out equally among classes, whose means follow them.

    The embeddings, which must not be negative, are raised to a power, which makes them more like a Gaussian. Each step
    transports the queries to the class means at the least cost, so that every class gets as many, and moves the means
    towards those of what they got. The plan of the end is the answer.

    It assumes that a task has as many queries of each class.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N], of the transport plan.
    Args:
        backbone: from inputs to embeddings [R, D]; what is negative in them counts as 0.
        train_classes: classes of the split train.
        power: of the embeddings, > 0 (beta in the paper); 1 leaves them as they are.
        sharpness: factor of the squared distances in the plan, >= 0 (lambda in the paper).
        rate: share of the way that the means go in a step, >= 0 (alpha in the paper).
        steps: of the means, >= 0.
        transport_steps: of each plan's computation, which begins where the one before ended.
        features: after the power, as they are (`un`, as in easyfsl), of length 1 (`l2n`), or `centred` as in the
            authors' code: of length 1, less the mean of the support images, or of the queries, and again of length 1.
        engine, task_chunk: how a batch of tasks is computed, see EpisodicLearner.
    Reference: Hu, Gripon, Pateux. Leveraging the Feature Distribution in Transfer-based Few-Shot Learning. ICANN 2021.
        arXiv:2006.03806, equations 1, 3 and 6, algorithm 1.
    """

    answers = "together, balanced assumed"
    batched = True

    def __init__(
        self,
        backbone: nn.Module,
        train_classes: int,
        power: PositiveFloat,
        sharpness: NonNegativeFloat,
        rate: NonNegativeFloat,
        steps: NonNegativeInt,
        transport_steps: PositiveInt,
        features: PowerFeatures,
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(backbone, train_classes, features, engine, task_chunk)
        self.power, self.sharpness, self.rate, self.steps = power, sharpness, rate, steps
        self.transport_steps = transport_steps

    def list_features(self) -> tuple[str, ...]:
        return get_args(PowerFeatures)

    def prepares_alone(self) -> bool:
        return self.features != "centred"

    def prepare(self, embedded: Tensor) -> Tensor:
        powered = (embedded.relu() + 1e-6).pow(self.power)  # equation 1
        if self.features == "un":
            return powered
        scaled = F.normalize(powered, dim=-1)
        return F.normalize(scaled - scaled.mean(-2, keepdim=True), dim=-1) if self.features == "centred" else scaled

    def answer(self, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        means = average_classes(support, classes)
        everything, added = torch.cat([support, query], -2), torch.zeros_like(classes[..., 0, :])
        for step in range(self.steps + 1):
            logits = self.sharpness * compute_nearness(query, means)
            added = balance_columns(logits, self.transport_steps, added)  # [..., N]
            if step < self.steps:
                shares = softmax(logits + added[..., None, :])  # equation 3
                target = average_classes(everything, torch.cat([classes, shares], -2))  # equation 6
                means = means + self.rate * (target - means)
        return logits + added[..., None, :]
