from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from metarun.algos.base.metric import MetricLearner
from metarun.algos.base.pretraining import Fit, Pretraining, PretrainingSettings
from metarun.ops.functional import Params


class Baseline(Pretraining, MetricLearner):
    """Learns to tell all training classes apart; for a task, a new linear head is fit to the frozen embeddings.

    The head starts at zero and descends the cross-entropy of the whole support set, where the paper starts at
    random and takes small batches.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: from inputs to embeddings [R, D].
        train_classes: classes of the split train.
        settings: of the classifier's training and the head's fit, see PretrainingSettings.
    Reference: Chen, Liu, Kira, Wang, Huang. A Closer Look at Few-shot Classification. ICLR 2019. arXiv:1904.04232,
        section 3.2.
    """

    def __init__(self, backbone: nn.Module, train_classes: int, **settings: Unpack[PretrainingSettings]) -> None:
        super().__init__(backbone, settings["engine"], settings["task_chunk"])
        self.label_smoothing = settings.get("label_smoothing", 0.0)
        self.fit = Fit.of(settings)
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

        return self.logits(self.fit(loss, self.start(support, classes)), query)

    def describe(self) -> dict[str, Any]:
        return self.fit.describe()
