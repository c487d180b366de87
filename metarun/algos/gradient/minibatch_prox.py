from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

from torch import Tensor, nn

from metarun.algos.base.proximal import check_rate, proximal
from metarun.algos.gradient.maml import Adapted
from metarun.algos.gradient.reptile import Reptile, ReptileSettings
from metarun.core.ranges import PositiveFloat
from metarun.core.tasks import Examples, Objective
from metarun.ops.functional import Params


class MinibatchProx(Reptile):
    """Learns initial weights near which every task has good ones: Reptile with an inner loop held near theta.

    phi minimises the support loss plus lam / 2 times the squared distance to theta, in test too; lam times
    theta - phi is then the exact gradient of that minimum, which is what theta descends.

    Args: as for Reptile, but
        inner_lr: below 2 / lam, or gradient descent runs away.
        lam: strength of the pull towards theta (lambda in the paper), > 0.
    Reference: Zhou, Yuan, Xu, Yan, Feng. Efficient Meta Learning via Minibatch Proximal Update. NeurIPS 2019.
    """

    recordable = True

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        objective: Objective,
        *,
        lam: PositiveFloat,
        **reptile: Unpack[ReptileSettings],
    ) -> None:
        reptile.setdefault("inner_optimizer", "sgd")
        super().__init__(backbone, outputs, objective, **reptile)
        check_rate(self.inner, lam)
        self.lam = lam

    def inner_loss(self, theta: Params, minibatch: Examples) -> Callable[[Params], Tensor]:
        return proximal(super().inner_loss(theta, minibatch), theta, self.lam)

    def score(self, params: Params, state: Adapted, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        scores = super().score(params, state, output, y)
        return scores | ({"pull": self.lam * scores["pull"]} if self.training else {})
