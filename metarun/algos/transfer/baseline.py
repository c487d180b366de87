from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import MetricLearner
from metarun.algos.base.pretraining import Pretraining, fitted
from metarun.core.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat
from metarun.ops.functional import Params


class Baseline(Pretraining, MetricLearner):
    """Learns to tell all training classes apart; for a task, a new linear head is fit to the frozen embeddings.

    The head starts at zero and descends the cross-entropy of the whole support set, where the paper starts at
    random and takes small batches.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: from inputs to embeddings [R, D].
        train_classes: classes of the split train.
        inner_lr: step size of the head's fit, > 0.
        test_inner_steps: its steps, >= 0.
        inner_weight_decay: pulls the head to zero, >= 0.
        engine, task_chunk: how a batch of tasks is computed, see EpisodicLearner.
    Reference: Chen, Liu, Kira, Wang, Huang. A Closer Look at Few-shot Classification. ICLR 2019. arXiv:1904.04232,
        section 3.2.
    """

    def __init__(
        self,
        backbone: nn.Module,
        train_classes: int,
        inner_lr: PositiveFloat,
        test_inner_steps: NonNegativeInt,
        inner_weight_decay: NonNegativeFloat,
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(backbone, engine, task_chunk)
        self.inner_lr, self.test_inner_steps, self.inner_weight_decay = inner_lr, test_inner_steps, inner_weight_decay
        self.classifier: nn.Module = nn.Linear(int(backbone.out_features), train_classes)  # type: ignore[arg-type]

    def start(self, support: Tensor, classes: Tensor) -> Params:
        """The weights that a task's head starts from."""
        zero = support.new_zeros(classes.shape[1], support.shape[1])
        return {"weight": zero, "bias": zero[:, 0]}

    def logits(self, head: Params, embedded: Tensor) -> Tensor:
        """What a task's head makes of embeddings [R, D]: [R, N]."""
        return linear(embedded, head["weight"], head["bias"])

    def compare(self, params: Params, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        def loss(head: Params) -> Tensor:
            return cross_entropy(self.logits(head, support), classes)

        start = self.start(support, classes)
        return self.logits(fitted(loss, start, self.test_inner_steps, self.inner_lr, self.inner_weight_decay), query)

    def describe(self) -> dict[str, Any]:
        return {"inner_steps": {"train": 0, "test": self.test_inner_steps}, "inner_lr": self.inner_lr}
