from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarun.ops.context import in_inner_loop


class Noise(nn.Module):
    """A layer such as dropout that is on in training, but off in validation and test and in every inner loop.

    So phi is a function of theta and the support set, in training and in tests. The query images, from which theta
    learns, get the noise. It comes from torch's global generator, which a run seeds and saves in its checkpoints.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if self.training and not in_inner_loop() else x


class DropBlock(nn.Module):
    """Zeroes squares of each channel of a feature map and scales up the rest.

    MetaOptNet raises the rate from 0 over its first 40,000 batches; here it is constant.

    Shapes: x [R, C, H, W] -> the same.
    Args:
        rate: share of the map to drop, in [0, 1).
        size: side of the squares; in a smaller map, its shorter side.
    Reference: Ghiasi, Lin, Le. DropBlock. NeurIPS 2018. arXiv:1810.12890, Algorithm 1.
    """

    def __init__(self, rate: float, size: int) -> None:
        super().__init__()
        check_rate(rate)
        self.rate, self.size = rate, size

    def forward(self, x: Tensor) -> Tensor:
        rows, channels, height, width = x.shape
        size = min(self.size, height, width)
        places = height - size + 1, width - size + 1  # corners of squares that lie inside
        gamma = self.rate / size**2 * (height * width) / (places[0] * places[1])  # equation 1
        corners = torch.rand((rows, channels, *places), dtype=x.dtype, device=x.device) < gamma
        border = (size - 1,) * 4
        kept = 1 - F.max_pool2d(F.pad(corners.to(x.dtype), border), size, stride=1)
        return x * kept * (kept.numel() / kept.sum().clamp(min=1))


class Dropout(nn.Module):
    """Dropout of single numbers, which draws the same for tasks one by one as for tasks together under vmap.

    torch's own draws others. Shapes: x [...] -> the same.
    Args:
        rate: share of the numbers to drop, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        check_rate(rate)
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        kept = torch.rand(x.shape, dtype=x.dtype, device=x.device) >= self.rate
        return x * kept / (1 - self.rate)


class DropPath(nn.Module):
    """Zeroes whole images in one branch of a network and scales up the others.

    torchvision's StochasticDepth draws in place, which vmap refuses.

    Shapes: x [R, ...] -> the same.
    Args:
        rate: share of the images to drop, in [0, 1).
    Reference: Huang, Sun, Liu, Sedra, Weinberger. Deep Networks with Stochastic Depth. ECCV 2016. arXiv:1603.09382.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        kept = torch.rand((x.shape[0],) + (1,) * (x.dim() - 1), dtype=x.dtype, device=x.device) >= self.rate
        return x * kept / (1 - self.rate)


def draw_normal(*shape: int, like: Tensor) -> Tensor:
    """Draw standard normal numbers; tasks one by one get the same ones as tasks together under vmap.

    They come from torch.rand, which draws one after the other; the order of torch.randn depends on how many there are.
    """
    u = torch.rand(shape, dtype=like.dtype, device=like.device)
    return math.sqrt(2) * torch.erfinv(2 * u.clamp(min=2**-25) - 1)


def check_rate(rate: float) -> None:
    """Raise ValueError if the rate is not in [0, 1)."""
    if not 0 <= rate < 1:
        raise ValueError(f"backbone.drop_rate={rate} must be at least 0 and below 1")
