from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metarun.core.ranges import PositiveInt
from metarun.ops.norm import batch_norm, needs_bias


class MLP(nn.Module):
    """Fully connected layers, each with batch normalisation and ReLU; the MAML paper's FC net by default.

    Shapes: x [R, ...] -> features [R, out_features].
    Args:
        input_shape: shape of one input, which is flattened.
        bn: where normalisation takes its statistics from, see metarun/ops/norm.py.
        widths: units of each layer.
    Reference: Finn, Abbeel, Levine. MAML. ICML 2017. arXiv:1703.03400, section 5.2 (256, 128, 64, 64 on Omniglot)
        and 5.1 (40, 40 without normalisation on sinusoids).
    """

    def __init__(
        self, input_shape: tuple[int, ...], bn: str, widths: Sequence[PositiveInt] = (256, 128, 64, 64)
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = math.prod(input_shape)
        for width in widths:
            layers += [nn.Linear(inputs, width, bias=needs_bias(bn)), batch_norm(width, bn), nn.ReLU()]
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.out_features = inputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(torch.flatten(x, 1))
        return out
