from __future__ import annotations

from torch import Tensor

from metarun.algos.base import wrappers
from metarun.algos.gradient.maml import MAML, Adapted
from metarun.core.tasks import Examples
from metarun.ops.functional import Params, call, within


class ANIL(MAML):
    """MAML whose inner loop adapts only the head; the backbone is meta-learned and the same for all tasks.

    The support set is encoded once for each task, so inner steps cost next to nothing.

    Args: as for MAML.
    Reference: Raghu, Raghu, Bengio, Vinyals. Rapid Learning or Feature Reuse? ICLR 2020. arXiv:1909.09157.
    """

    recordable = True
    learn2learn = wrappers.anil

    def adapt(self, params: Params, support: Examples, n_way: int) -> Adapted:
        net = within(params, "net")
        features = call(self.net.backbone, within(net, "backbone"), support.x)

        def loss(head: Params) -> Tensor:
            return self.objective(call(self.net.head, head, features), support.y)["loss"]

        def whole(head: Params) -> Params:
            return net | {f"head.{name}": value for name, value in head.items()}

        adapted, after = self.descend(loss, within(net, "head"), params)
        return Adapted(whole(adapted), support, {steps: whole(head) for steps, head in after.items()})
