"""A network of another library, with or without trained weights, as a backbone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from metarun.backbones.maps import image_shape
from metarun.backbones.pretrained import one_line
from metarun.ops.freezing import freeze
from metarun.ops.layer_norm import LayerNorm, LayerNorm2d
from metarun.ops.noise import DropPath, Noise
from metarun.ops.norm import BATCH_MODES, BatchNorm, batch_norm

LAYER_NORMS = {"LayerNorm": LayerNorm, "LayerNorm2d": LayerNorm2d}
"""Ours for torch's, torchvision's and timm's, by the names of the classes; others stay as they are."""

DROP_PATHS = {"StochasticDepth": "p", "DropPath": "drop_prob"}
"""Layers that drop whole branches, in torchvision and in timm, and what they call the rate."""

log = logging.getLogger(__name__)


class WeightsLook(NamedTuple):
    """What trained weights expect of images: mean and std of pixels in 0..1, side in pixels, interpolation."""

    mean: Sequence[float]
    std: Sequence[float]
    size: int
    interpolation: str


class TrainedNetwork(nn.Module):
    """A network of another library without its last linear layer.

    Inputs are the same as for every network. With weights, this class normalises them anew and scales them to the size
    that the weights were trained at; but it keeps the whole image, where the libraries' transforms cut off the border.
    Gray images become three equal channels. BatchNorm layers follow the run's `bn`; with `running` they start from the
    averages in the weights. Inner loops switch dropout and the like off, see metarun/ops/noise.py.

    Shapes: x [R, C, H, W] -> features [R, out_features].
    Args:
        net: the network, which returns features.
        look: what its weights expect; None without weights.
        input_shape: C, H, W.
        bn: where normalisation takes its statistics from, see metarun/ops/norm.py.
        normalisation: mean and std that the inputs are normalised with, see SourceInfo; None if not known.
        name: what messages call it.
        frozen: learn nothing of the network, neither in the outer nor in an inner loop; with `bn=running` the averages
            stay too. The network then has no parameters.
        image_size: side in pixels that images are scaled to; None means the size of the weights, or no scaling without
            weights.
    Raises: ValueError if it does not take these images, or `bn` not these weights.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        net: nn.Module,
        look: WeightsLook | None,
        input_shape: tuple[int, ...],
        bn: str,
        normalisation: tuple[Sequence[float], Sequence[float]] | None,
        name: str,
        frozen: bool,
        image_size: int | None,
    ) -> None:
        super().__init__()
        _, height, width = image_shape(name, input_shape)
        self.net = net
        if bn not in BATCH_MODES and look and any(isinstance(m, nn.BatchNorm2d) for m in net.modules()):
            raise ValueError(f"the weights of {name} need its BatchNorm layers; set bn=running")
        self.frozen = frozen
        replace_layers(net, bn, frozen)
        if frozen:
            freeze(net)
        side = image_size or (look.size if look else None)
        self.size = (side, side) if side else (height, width)
        self.mode = look.interpolation if look else "bilinear"
        scale, shift = _find_scale(normalisation, look)
        self.register_buffer("scale", scale[:, None, None], persistent=False)  # not saved: it belongs to the data
        self.register_buffer("shift", shift[:, None, None], persistent=False)
        self.out_features = self._count_features(name, input_shape)
        self.train()

    def train(self, mode: bool = True) -> TrainedNetwork:
        super().train(mode)
        if self.frozen:
            self.net.eval()
        return self

    def extra_repr(self) -> str:
        return f"size={self.size}, mode={self.mode}"

    def forward(self, x: Tensor) -> Tensor:
        x = (x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x) * self.scale + self.shift
        if x.shape[-2:] != self.size:
            smaller = x.shape[-2] > self.size[0]
            x = F.interpolate(x, self.size, mode=self.mode, antialias=smaller, align_corners=False)
        features: Tensor = self.net(x)
        return features.flatten(1)

    def _count_features(self, name: str, input_shape: tuple[int, ...]) -> int:
        """Return the number of features of an image, by computing those of two."""
        self.eval()
        try:
            with torch.no_grad():
                return int(self(torch.zeros(2, *input_shape)).shape[1])
        except (AssertionError, RuntimeError, ValueError) as error:
            height, width = self.size
            raise ValueError(
                f"{name} does not take {input_shape[0]}x{height}x{width} images ({one_line(error)}); "
                "set backbone.image_size, most are made for 224"
            ) from error


def replace_layers(module: nn.Module, bn: str, frozen: bool) -> None:
    """Replace BatchNorm layers by ones that follow the run's `bn`, LayerNorm layers by ones that torch.func
    differentiates correctly, and noise layers by ones that are off in inner loops.
    """
    for name, child in list(module.named_children()):
        kind = type(child).__name__
        if isinstance(child, nn.BatchNorm2d):
            parts = [getattr(child, part) for part in ("drop", "act") if hasattr(child, part)]  # timm's BatchNormAct2d
            made = _norm(child, bn, frozen)
            setattr(module, name, nn.Sequential(made, *parts) if parts else made)
        elif isinstance(child, nn.LayerNorm) and kind in LAYER_NORMS and len(child.state_dict()) == 2:
            normalised = LAYER_NORMS[kind](list(child.normalized_shape), child.eps)
            normalised.load_state_dict(child.state_dict())
            setattr(module, name, normalised)
        elif kind in DROP_PATHS:
            setattr(module, name, Noise(DropPath(getattr(child, DROP_PATHS[kind]) or 0.0)))
        elif isinstance(child, nn.Dropout):
            setattr(module, name, Noise(nn.Dropout(child.p)))  # never in place, because vmap refuses that
        else:
            replace_layers(child, bn, frozen)


def _norm(layer: nn.BatchNorm2d, bn: str, frozen: bool) -> nn.Module:
    """Make a layer with the same weights and averages that follows the run's `bn`."""
    channels, eps = layer.num_features, layer.eps
    if bn not in BATCH_MODES:
        return batch_norm(channels, bn)
    fixed = bn == "running" and frozen
    made = FrozenBatchNorm2d(channels, eps) if fixed else BatchNorm(channels, bn, eps, layer.momentum or 0.1)
    made.load_state_dict({key: value for key, value in layer.state_dict().items() if key in made.state_dict()})
    return made


def _find_scale(
    normalisation: tuple[Sequence[float], Sequence[float]] | None, look: WeightsLook | None
) -> tuple[Tensor, Tensor]:
    """Return scale and shift [1 or 3], so that x * scale + shift is normalised as `look` says."""
    if look is None:
        return torch.ones(1), torch.zeros(1)
    if normalisation is None:
        log.warning("mean and std of the images are not known: trained weights get them as they are")
        return torch.ones(1), torch.zeros(1)
    mean, std = (torch.tensor(list(values)) for values in normalisation)
    wanted_mean, wanted_std = torch.tensor(list(look.mean)), torch.tensor(list(look.std))
    return std / wanted_std, (mean - wanted_mean) / wanted_std
