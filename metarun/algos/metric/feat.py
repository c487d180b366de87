from __future__ import annotations

import math

from torch import Tensor, nn

from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import MetricLearner, average_classes, compute_nearness
from metarun.core.ranges import NonNegativeInt, PositiveFloat, ShareBelowOne
from metarun.ops.functional import Params, call, within
from metarun.ops.layer_norm import LayerNorm
from metarun.ops.noise import Dropout, Noise


class FEAT(MetricLearner):
    """Learns an embedding and an attention among class means, which fits the means of a task to each other.

    A query goes to the nearest of the means so adapted. The paper first trains the backbone on all training classes:
    `backbone.weights=RUN` starts from such a run, and `+optim.parts.attention.lr` gives the attention a rate of its
    own (ten times the backbone's in the paper's code). Its contrastive loss is left out, as its code does by default.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: from inputs to embeddings [R, D].
        temperature: divides the logits, minus squared distances, > 0; 64 in the paper's code, for 640 numbers.
        dropout: share of the attention's output that is dropped in training.
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
    Reference: Ye, Hu, Zhan, Sha. Few-Shot Learning via Embedding Adaptation with Set-to-Set Functions. CVPR 2020.
        arXiv:1812.03664, equations 4 and 5; section 3.2 with one head.
    """

    batched = True

    def __init__(
        self,
        backbone: nn.Module,
        temperature: PositiveFloat,
        dropout: ShareBelowOne,
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(backbone, engine, task_chunk)
        self.temperature = temperature
        self.attention = SetToSet(int(backbone.out_features), dropout)  # type: ignore[arg-type]

    def compare(self, params: Params, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        means = average_classes(support, classes)
        adapted: Tensor = call(self.attention, within(params, "attention"), means)
        return compute_nearness(query, adapted) / self.temperature


class SetToSet(nn.Module):
    """A layer of self-attention with one head: each of N vectors [..., N, D] takes from all, and is normalised."""

    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(size, size, bias=False) for _ in range(3))
        for layer in (self.query, self.key, self.value):
            nn.init.normal_(layer.weight, std=1 / math.sqrt(size))
        self.out = nn.Linear(size, size)
        nn.init.xavier_normal_(self.out.weight)
        self.norm = LayerNorm([size])
        self.dropout = Noise(Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        near = self.query(x) @ self.key(x).mT / math.sqrt(x.shape[-1])  # [..., N, N]
        found: Tensor = self.norm(x + self.dropout(self.out(near.softmax(-1) @ self.value(x))))
        return found
