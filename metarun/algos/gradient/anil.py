from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from metarun.algos.base.learn2learn import learn2learn
from metarun.algos.base.network import with_support
from metarun.algos.gradient.maml import MAML, Adapted
from metarun.core.tasks import Examples
from metarun.ops.functional import Params, call, within


class ANIL(MAML):
    """MAML whose inner loop adapts the head alone; the backbone is meta-learned and reused as it is.

    The support set is encoded once per task, so inner steps cost next to nothing.

    Args: as for MAML.
    Reference: Raghu, Raghu, Bengio, Vinyals. Rapid Learning or Feature Reuse? ICLR 2020. arXiv:1909.09157.
    """

    recordable = True

    def adapt(self, params: Params, support: Examples, n_way: int) -> Adapted:
        net = within(params, "net")
        features = call(self.net.backbone, within(net, "backbone"), support.x)

        def loss(head: Params) -> Tensor:
            return self.objective(call(self.net.head, head, features), support.y)["loss"]

        def whole(head: Params) -> Params:
            return net | {f"head.{name}": value for name, value in head.items()}

        adapted, after = self.descend(loss, within(net, "head"), params)
        return Adapted(whole(adapted), support, {steps: whole(head) for steps, head in after.items()})

    def adapt_learn2learn(self, support: Examples, n_way: int) -> Callable[[Tensor], Tensor]:
        first_order = self.first_order or not self.training
        with torch.enable_grad():
            head = learn2learn().algorithms.MAML(self.net.head, lr=self.inner_lr, first_order=first_order).clone()
            features = self.net.backbone(support.x)
            for _ in range(self.steps):
                head.adapt(self.objective(head(features), support.y)["loss"])

        def predict(x: Tensor) -> Tensor:
            logits: Tensor = head(with_support(self.net.backbone, self.net.backbone, support.x, x))
            return logits

        return predict
