from __future__ import annotations

from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarun.algos.base.network import Network
from metarun.algos.gradient.maml import MAML, Adapted, MAMLSettings
from metarun.core.objectives import classification
from metarun.core.tasks import Examples
from metarun.ops.functional import Params, call, one_hot, within


class ProtoMAML(MAML):
    """MAML whose head starts, on every task, as the nearest-prototype classifier; no head is meta-learned.

    The inner loop then trains backbone and head. The meta-gradient goes through the prototypes too. The head has no
    fixed size, so training tasks may have more classes than test tasks.

    Args: as for MAML, but
        engine: `vectorized`; learn2learn has no Proto-MAML.
    Reference: Triantafillou et al. Meta-Dataset. ICLR 2020. arXiv:1903.03096.
    """

    recordable = True

    kinds: ClassVar[tuple[str, ...]] = ("classification",)

    def __init__(self, backbone: nn.Module, **maml: Unpack[MAMLSettings]) -> None:
        super().__init__(backbone, 0, classification, **maml)

    def network(self, backbone: nn.Module, outputs: int) -> Network:
        return PrototypeNetwork(backbone)

    def adapt(self, params: Params, support: Examples, n_way: int) -> Adapted:
        net = within(params, "net")
        features = call(self.net.backbone, within(net, "backbone"), support.x)
        apart = {name: value.view_as(value) for name, value in net.items()}  # copies that the head does not depend on
        return self.adapt_from(apart | make_prototype_head(features, support.y, n_way), support, params)


class PrototypeNetwork(Network):
    """A backbone and a linear head without parameters: its weight and bias come with each call."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone, 1)
        self.head = GivenHead()


class GivenHead(nn.Module):
    """A linear layer whose weight and bias are buffers, empty until a call gives them."""

    weight: Tensor
    bias: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(0), persistent=False)
        self.register_buffer("bias", torch.empty(0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def make_prototype_head(features: Tensor, y: Tensor, n_way: int) -> Params:
    """Make the linear head whose logits are minus squared distances to class means, up to a common term."""
    classes = one_hot(y, n_way, features.dtype)
    prototypes = classes.T @ features / classes.sum(0)[:, None]  # [N, D]
    return {"head.weight": 2 * prototypes, "head.bias": -prototypes.square().sum(-1)}
