from __future__ import annotations

from torch import nn

from metarun.algos.base import wrappers
from metarun.algos.base.network import Network, check_adaptable
from metarun.algos.gradient.maml import MAML
from metarun.ops.functional import Params


class BOIL(MAML):
    """MAML whose inner loop adapts only the backbone, not the head: the opposite of ANIL.

    With a fixed head, the inner loop must change the features. The paper finds that this transfers across domains.

    Args: as for MAML.
    Reference: Oh, Yoo, Kim, Yun. BOIL: Towards Representation Change for Few-shot Learning. ICLR 2021.
        arXiv:2008.08882.
    """

    recordable = True
    learn2learn = wrappers.boil

    def network(self, backbone: nn.Module, outputs: int) -> Network:
        check_adaptable(backbone, "BOIL", "set backbone.frozen=false, or algo=anil, which adapts the head alone")
        return super().network(backbone, outputs)

    def select_adapted(self, net: Params) -> Params:
        return {name: value for name, value in net.items() if name.startswith("backbone.")}
