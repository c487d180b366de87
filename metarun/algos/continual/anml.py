from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from metarun.algos.continual.head import Head
from metarun.algos.continual.oml import OML, OMLSettings
from metarun.core.tasks import Examples
from metarun.ops.functional import Params, call, gradient, within
from metarun.ops.norm import has_batch_norm


class ANML(OML):
    """OML whose features a second network opens and closes: through a closed one the head neither answers nor learns.

    The gate is a network like the backbone, which starts from the same weights, and a linear layer to a number in 0..1
    for each feature. Like the representation it is trained by the outer steps and stands still in a stream, as in the
    paper's tests. In training the paper's steps move the network below the head too (`moves=all`), by a derivative that
    goes through all of them; a step has one image, so this needs a network without BatchNorm, where the paper's code
    normalises each image by itself. The gate is never moved.

    Args: as for OML, and
        moves: what the steps of a trajectory move in training: `head`; `all`, the network below it too.
    Reference: Beaulieu et al. Learning to Continually Learn. ECAI 2020. arXiv:2002.09571, section 2. The paper's
        trajectory is one class.
    """

    def __init__(
        self, backbone: nn.Module, train_classes: int, moves: Literal["head", "all"], **settings: Unpack[OMLSettings]
    ) -> None:
        super().__init__(backbone, train_classes, **settings)
        if moves == "all" and has_batch_norm(backbone):
            raise ValueError(
                "algo.moves=all steps with one image at a time, whose BatchNorm is not that of a batch; set bn=none"
            )
        self.moves = moves
        size = int(backbone.out_features)  # type: ignore[arg-type]
        self.gate = nn.Sequential(deepcopy(backbone), nn.Linear(size, size))

    def follow(self, head: Head, learned: Examples, x: Tensor) -> Tensor:
        if self.moves == "head":
            return super().follow(head, learned, x)
        theta = self.theta()
        gates, asked = torch.split(self.open(theta, torch.cat([learned.x, x])), [len(learned.x), len(x)])
        phi = {name: value for name, value in theta.items() if name.startswith("backbone.")}
        phi |= {"head.weight": head.weight, "head.bias": head.bias}

        def answer(x: Tensor, gate: Tensor, phi: Params) -> Tensor:
            features = call(self.backbone, within(phi, "backbone"), x) * gate
            return linear(features, phi["head.weight"], phi["head.bias"])

        def loss(x: Tensor, gate: Tensor, y: Tensor, phi: Params) -> Tensor:
            return cross_entropy(answer(x[None], gate[None], phi), y[None])

        for one in zip(learned.x, gates, learned.y, strict=True):
            slope = gradient(partial(loss, *one), phi, first_order=False)
            phi = {name: value - self.inner_lr * slope[name] for name, value in phi.items()}
        return answer(x, asked, phi)

    def open(self, params: Params, x: Tensor) -> Tensor:
        """Return how far each feature is open [R, D], in 0..1."""
        opened: Tensor = call(self.gate, within(params, "gate"), x).sigmoid()
        return opened

    def represent(self, params: Params, x: Tensor) -> Tensor:
        return super().represent(params, x) * self.open(params, x)
