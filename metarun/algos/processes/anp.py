from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor, nn

from metarun.algos.processes.cnp import make_mlp
from metarun.algos.processes.neural_process import NP, LatentSettings
from metarun.core.ranges import PositiveInt
from metarun.core.tasks import Examples


class ANP(NP):
    """A neural process in which every query point also attends to the support points with similar inputs.

    The value of a support point is the encoding of its x and y; keys and queries are encodings of x alone. As in the
    paper's 1-D experiments, support points do not attend to each other.

    Shapes: as CNP.
    Args:
        input_shape, outputs: D_in and D_out, from the source.
        heads: of the attention; they share `width` among them.
        settings: see LatentSettings.
    Reference: Kim et al. Attentive Neural Processes. ICLR 2019. arXiv:1901.05761; multihead
        attention as in Vaswani et al. Attention Is All You Need. NeurIPS 2017. arXiv:1706.03762, section 3.2.
    """

    def __init__(
        self, input_shape: tuple[int, ...], outputs: int, heads: PositiveInt, **settings: Unpack[LatentSettings]
    ) -> None:
        width = settings["width"]
        if width % heads:
            raise ValueError(f"algo.width={width} must be a multiple of algo.heads={heads}")
        super().__init__(input_shape, outputs, deterministic=True, **settings)
        self.key = make_mlp(math.prod(input_shape), width, 1, width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def features(self, support: Examples, x: Tensor) -> list[Tensor]:
        assert self.encoder is not None
        values = self.encoder(torch.cat(support, -1))  # [B, S, D]
        attended, _ = self.attention(self.key(x), self.key(support.x), values, need_weights=False)
        return [attended]
