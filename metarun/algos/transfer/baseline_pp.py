from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from metarun.algos.base.metric import average_classes
from metarun.algos.base.pretraining import PretrainingSettings
from metarun.algos.transfer.baseline import Baseline
from metarun.core.ranges import PositiveFloat
from metarun.ops.functional import Params


class BaselinePP(Baseline):
    """Baseline++: as Baseline, with cosine similarities in place of scalar products, in training and in test.

    A task's head starts at the class means, where the paper starts at random: the fit is the same problem and no
    task depends on a draw.

    Args: as for Baseline, and
        scale: factor of the cosine similarities, > 0; the paper's code has 2 up to 200 training classes, 10 above.
    Reference: as for Baseline, section 3.2 and figure 1.
    """

    def __init__(
        self, backbone: nn.Module, train_classes: int, scale: PositiveFloat, **settings: Unpack[PretrainingSettings]
    ) -> None:
        super().__init__(backbone, train_classes, **settings)
        self.scale = scale
        self.classifier = CosineHead(int(backbone.out_features), train_classes, scale)  # type: ignore[arg-type]

    def start(self, support: Tensor, classes: Tensor) -> Params:
        return {"weight": average_classes(normalize(support, dim=-1), classes)}

    def logits(self, head: Params, embedded: Tensor) -> Tensor:
        return cosine_logits(embedded, head["weight"], self.scale)


class CosineHead(nn.Module):
    """Logits are scaled cosine similarities of x [R, D] to a weight of each class: [R, outputs]."""

    def __init__(self, features: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Linear(features, outputs, bias=False).weight  # short vectors turn faster
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return cosine_logits(x, self.weight, self.scale)


def cosine_logits(x: Tensor, weight: Tensor, scale: float) -> Tensor:
    """Cosine similarities of x [R, D] to weight [N, D], times `scale`: [R, N]."""
    return scale * linear(normalize(x, dim=-1), normalize(weight, dim=-1))
