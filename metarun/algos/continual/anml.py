from __future__ import annotations

from copy import deepcopy
from typing import Unpack

from torch import Tensor, nn

from metarun.algos.continual.oml import OML, OMLSettings
from metarun.ops.functional import Params, call, within


class ANML(OML):
    """OML whose features a second network opens and closes: through a closed one the head neither answers nor learns.

    The gate is a network like the backbone, which starts from the same weights, and a linear layer to a number in 0..1
    for each feature. Like the representation it is trained by the outer steps and stands still in a stream, as in the
    paper's tests; in the paper's training the steps move the network below the head too.

    Args: as for OML. The paper's trajectory is one class.
    Reference: Beaulieu et al. Learning to Continually Learn. ECAI 2020. arXiv:2002.09571, section 2.
    """

    def __init__(self, backbone: nn.Module, train_classes: int, **settings: Unpack[OMLSettings]) -> None:
        super().__init__(backbone, train_classes, **settings)
        size = int(backbone.out_features)  # type: ignore[arg-type]
        self.gate = nn.Sequential(deepcopy(backbone), nn.Linear(size, size))

    def represent(self, params: Params, x: Tensor) -> Tensor:
        opened: Tensor = call(self.gate, within(params, "gate"), x).sigmoid()
        return super().represent(params, x) * opened
