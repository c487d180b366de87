from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from metarun.algos.base.learn2learn import learn2learn
from metarun.algos.base.network import with_support
from metarun.algos.gradient.maml import MAML
from metarun.core.tasks import Examples
from metarun.ops.functional import Params


class BOIL(MAML):
    """MAML whose inner loop adapts the backbone alone and leaves the head: the opposite of ANIL.

    With the head fixed, a task has to move its features, which is what the paper finds transfers across domains.

    Args: as for MAML.
    Reference: Oh, Yoo, Kim, Yun. BOIL: Towards Representation Change for Few-shot Learning. ICLR 2021.
        arXiv:2008.08882.
    """

    recordable = True

    def adapted(self, net: Params) -> Params:
        return {name: value for name, value in net.items() if name.startswith("backbone.")}

    def adapt_learn2learn(self, support: Examples, n_way: int) -> Callable[[Tensor], Tensor]:
        first_order = self.first_order or not self.training
        with torch.enable_grad():
            body = learn2learn().algorithms.MAML(self.net.backbone, lr=self.inner_lr, first_order=first_order).clone()
            for _ in range(self.steps):
                body.adapt(self.objective(self.net.head(body(support.x)), support.y)["loss"])
        return partial(with_support, self.net, lambda x: self.net.head(body(x)), support.x)
