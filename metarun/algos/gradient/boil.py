from __future__ import annotations

from metarun.algos.base import wrappers
from metarun.algos.gradient.maml import MAML
from metarun.ops.functional import Params


class BOIL(MAML):
    """MAML whose inner loop adapts the backbone alone and leaves the head: the opposite of ANIL.

    With the head fixed, a task has to move its features, which is what the paper finds transfers across domains.

    Args: as for MAML.
    Reference: Oh, Yoo, Kim, Yun. BOIL: Towards Representation Change for Few-shot Learning. ICLR 2021.
        arXiv:2008.08882.
    """

    recordable = True
    learn2learn = wrappers.boil

    def adapted(self, net: Params) -> Params:
        return {name: value for name, value in net.items() if name.startswith("backbone.")}
