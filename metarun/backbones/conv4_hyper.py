from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarun.backbones.maps import conv_norm, image_shape
from metarun.core.ranges import PositiveInt
from metarun.ops import context
from metarun.ops.convolution import Geometry, convolve
from metarun.ops.norm import batch_norm
from metarun.ops.pooling import MaxPool2d

KERNEL = 9
"""Numbers of a 3x3 kernel."""


class HyperConv4(nn.Module):
    """Conv-4 with pooling, whose filters a network generates from a short vector of each layer: a static hypernetwork.

    The generator is the same for all layers but the first, whose input has other channels and which is an ordinary
    convolution. For each input channel i a matrix of its own makes a vector of the layer's, and a second matrix, the
    same for all input channels, makes the filters' parts for that channel. With 64 filters and vectors of 4 its
    4,172 numbers generate 110,592. It starts with filters of variance 2 / (9 `hidden`), as He et al. start plain ones.

    Shapes: x [R, C, H, W] -> features [R, out_features], made from feature_map [R, *map_shape].
    Args:
        input_shape: C, H, W.
        bn: where normalisation takes its statistics from, see metarun/ops/norm.py.
        hidden: filters of each layer.
        layers: number of blocks, each of which halves height and width.
        embedding: size of a layer's vector, N_z, and of the vectors made of it, d.
    Raises: ValueError for images that are too small.
    Reference: Ha, Dai, Le. HyperNetworks. ICLR 2017. arXiv:1609.09106, section 3.1, equations 1 and 2.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        bn: str,
        hidden: PositiveInt = 64,
        layers: PositiveInt = 4,
        embedding: PositiveInt = 4,
    ) -> None:
        super().__init__()
        inputs, height, width = image_shape("conv4_hyper", input_shape)
        height, width = height >> layers, width >> layers
        if height * width == 0:
            raise ValueError(
                f"{layers} halvings leave nothing of {input_shape[1]}x{input_shape[2]} images; use larger ones or "
                "fewer backbone.layers"
            )
        self.first = nn.Sequential(*conv_norm(inputs, hidden, bn), MaxPool2d(2), nn.ReLU())
        self.embeddings = nn.Parameter(torch.randn(layers - 1, embedding))  # z
        self.inner = nn.Parameter(torch.randn(hidden, embedding, embedding) / math.sqrt(embedding))  # W_i
        self.inner_bias = nn.Parameter(torch.zeros(hidden, embedding))  # B_i
        spread = math.sqrt(2 / (embedding * KERNEL * hidden))
        self.outer = nn.Parameter(spread * torch.randn(hidden, KERNEL, embedding))  # W_out
        self.outer_bias = nn.Parameter(torch.zeros(hidden, KERNEL))  # B_out
        self.rest = nn.ModuleList(
            nn.Sequential(batch_norm(hidden, bn), MaxPool2d(2), nn.ReLU()) for _ in range(layers - 1)
        )
        self.map_shape = (hidden, height, width)
        self.out_features = hidden * height * width

    def generate(self, layer: int) -> Tensor:
        """Return the filters [hidden, hidden, 3, 3] of generated layer number `layer`, from 0."""
        made = self.inner @ self.embeddings[layer] + self.inner_bias  # a: [inputs, d]
        parts = torch.einsum("okd,id->oik", self.outer, made) + self.outer_bias[:, None]  # [outputs, inputs, 9]
        return parts.reshape(*parts.shape[:2], 3, 3)

    def feature_map(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for number, after in enumerate(self.rest):
            filters = self.generate(number)
            if context.is_transformed():
                x = after(convolve(x, filters, Geometry((1, 1), (1, 1), 1)))
            else:
                x = after(F.conv2d(x, filters, padding=1))
        return x

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.feature_map(x), 1)
