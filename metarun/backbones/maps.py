from __future__ import annotations

import torch
from torch import Tensor, nn

from metarun.ops.convolution import Conv2d
from metarun.ops.norm import batch_norm, needs_bias


class MapNetwork(nn.Module):
    """Base of the residual networks: layers turn an image into a map, which is averaged over positions or flattened.

    Shapes: x [R, C, H, W] -> features [R, out_features], made from feature_map [R, *map_shape].
    Args:
        layers: from images to maps. Their convolutions start as in He et al. (2015), by fan-out.
        map_shape: c, h, w of the maps.
        pool: average the map over positions; otherwise features are the whole map.
    """

    def __init__(self, layers: nn.Module, map_shape: tuple[int, int, int], pool: bool) -> None:
        super().__init__()
        self.layers, self.map_shape, self.pool = layers, map_shape, pool
        channels, height, width = map_shape
        self.out_features = channels if pool else channels * height * width
        for module in layers.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def feature_map(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x)
        return features

    def forward(self, x: Tensor) -> Tensor:
        features = self.feature_map(x)
        return features.mean((2, 3)) if self.pool else torch.flatten(features, 1)


def image_shape(name: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return C, H, W of the inputs. Raises: ValueError if they are no images."""
    if len(input_shape) != 3:
        raise ValueError(f"{name} needs images, and the inputs are numbers of shape {input_shape}; set backbone=mlp")
    channels, height, width = input_shape
    return channels, height, width


def convolution(inputs: int, outputs: int, bn: str, kernel: int = 3, stride: int = 1) -> Conv2d:
    """Make a convolution that keeps the size, apart from its stride. BatchNorm behind it would cancel a bias."""
    return Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=needs_bias(bn))


def conv_norm(inputs: int, outputs: int, bn: str, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    """Make such a convolution and the normalisation that follows it."""
    return [convolution(inputs, outputs, bn, kernel, stride), batch_norm(outputs, bn)]


class Residual(nn.Module):
    """Two branches get the same input; their sum goes through a last layer `after`."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.after = body, shortcut, after

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.after(self.body(x) + self.shortcut(x))
        return out
