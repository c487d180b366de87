from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

from torch import Tensor, nn

from metarun.algos.base.proximal import check_rate, hold_near
from metarun.algos.gradient.maml import Adapted
from metarun.algos.gradient.reptile import Reptile, ReptileSettings
from metarun.core.ranges import PositiveFloat
from metarun.core.tasks import Examples, Objective
from metarun.ops.functional import Params


class MinibatchProx(Reptile):
    """Learns initial weights near good weights of every task: Reptile with an inner loop that stays near theta.

    phi minimises the support loss plus lam / 2 times the squared distance to theta, also in tests. The gradient of this
    minimum by theta is exactly lam (theta - phi), and theta descends it.

    Args: as for Reptile, but
        inner_lr: below 2 / lam, or else gradient descent diverges.
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
        return hold_near(super().inner_loss(theta, minibatch), theta, self.lam)

    def score(self, params: Params, state: Adapted, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        scores = super().score(params, state, output, y)
        return scores | ({"pull": self.lam * scores["pull"]} if self.training else {})
