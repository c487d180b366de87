from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torchvision.models import convnext
from torchvision.ops import FrozenBatchNorm2d, StochasticDepth

from metarun.backbones.maps import image_shape
from metarun.backbones.pretrained import classifier, one_line
from metarun.core.ranges import FilePath, PositiveInt
from metarun.ops.context import in_inner_loop, is_transformed
from metarun.ops.layer_norm import LayerNorm, LayerNorm2d
from metarun.ops.noise import DropPath, Noise
from metarun.ops.norm import BatchNorm

log = logging.getLogger(__name__)


class Torchvision(nn.Module):
    """Any classifier of torchvision by its name, without its last linear layer, with or without trained weights.

    Inputs are the same as for every network. With weights, this class normalises them anew and scales them to the size
    that the weights were trained at, as the transforms of the weights say; but it keeps the whole image, where those
    transforms cut off the border. Gray images become three equal channels. BatchNorm layers follow the run's `bn`; with
    `running` they start from the averages in the weights. Inner loops switch dropout and the like off, see
    metarun/ops/noise.py.

    Shapes: x [R, C, H, W] -> features [R, out_features].
    Args:
        input_shape: C, H, W.
        bn: where normalisation takes its statistics from, see metarun/ops/norm.py.
        normalisation: mean and std that the inputs are normalised with, see SourceInfo; None if not known.
        name: name of the model, such as resnet18, convnext_tiny or vit_b_16.
        weights: null for random weights; DEFAULT or another name of the model's weights, which torchvision downloads;
            or a file with the model's state_dict, which may lack the last layer.
        frozen: learn nothing of the network, neither in the outer nor in an inner loop; with `bn=running` the averages
            stay too. The network then has no parameters.
        image_size: side in pixels that images are scaled to; null means the size of the weights, or no scaling without
            weights.
    Raises: ValueError if there is no such model or no such weights, or it does not take these images.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        input_shape: tuple[int, ...],
        bn: str,
        normalisation: tuple[Sequence[float], Sequence[float]] | None,
        name: str = "resnet18",
        weights: FilePath | None = None,
        frozen: bool = False,
        image_size: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        _, height, width = image_shape(name, input_shape)
        self.net, transforms = classifier(name, weights)
        if bn == "none" and weights is not None and any(isinstance(m, nn.BatchNorm2d) for m in self.net.modules()):
            raise ValueError(f"the weights of {name} need its BatchNorm layers; set bn=running")
        self.frozen = frozen
        replace_layers(self.net, bn, frozen)
        if frozen:
            _freeze(self.net)
        self.size = _size(transforms, image_size) or (height, width)
        self.mode = transforms.interpolation.value if transforms else "bilinear"
        scale, shift = _find_scale(normalisation, transforms)
        self.register_buffer("scale", scale[:, None, None], persistent=False)  # not saved: it belongs to the data
        self.register_buffer("shift", shift[:, None, None], persistent=False)
        self.out_features = self._count_features(name, input_shape)
        self.train()

    def train(self, mode: bool = True) -> Torchvision:
        super().train(mode)
        if self.frozen:
            self.net.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        x = (x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x) * self.scale + self.shift
        if x.shape[-2:] != self.size:
            smaller = x.shape[-2] > self.size[0]
            x = F.interpolate(x, self.size, mode=self.mode, antialias=smaller, align_corners=False)
        # Fused attention has no second derivative, which an inner loop may need.
        with sdpa_kernel(SDPBackend.MATH) if in_inner_loop() or is_transformed() else nullcontext():
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
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, _norm(child, bn, frozen))
        elif isinstance(child, nn.LayerNorm):
            kind = LayerNorm2d if isinstance(child, convnext.LayerNorm2d) else LayerNorm
            made = kind(list(child.normalized_shape), child.eps)
            made.load_state_dict(child.state_dict())
            setattr(module, name, made)
        elif isinstance(child, StochasticDepth):
            setattr(module, name, Noise(DropPath(child.p)))
        elif isinstance(child, nn.Dropout):
            setattr(module, name, Noise(nn.Dropout(child.p)))  # never in place, because vmap refuses that
        else:
            replace_layers(child, bn, frozen)


def _norm(layer: nn.BatchNorm2d, bn: str, frozen: bool) -> nn.Module:
    """Make a layer with the same weights and averages that follows the run's `bn`."""
    if bn == "none":
        return nn.Identity()
    fixed = bn == "running" and frozen
    channels, eps = layer.num_features, layer.eps
    made = FrozenBatchNorm2d(channels, eps) if fixed else BatchNorm(channels, bn, eps, layer.momentum or 0.1)
    made.load_state_dict({key: value for key, value in layer.state_dict().items() if key in made.state_dict()})
    return made


def _freeze(net: nn.Module) -> None:
    """Turn all parameters into buffers, which are saved and moved with the network but not learned."""
    for module in net.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, value.detach())


def _find_scale(
    normalisation: tuple[Sequence[float], Sequence[float]] | None, transforms: Any
) -> tuple[Tensor, Tensor]:
    """Return scale and shift [1 or 3], so that x * scale + shift is normalised as `transforms` does."""
    if transforms is None:
        return torch.ones(1), torch.zeros(1)
    if normalisation is None:
        log.warning("mean and std of the images are not known: trained weights get them as they are")
        return torch.ones(1), torch.zeros(1)
    mean, std = (torch.tensor(list(values)) for values in normalisation)
    wanted_mean, wanted_std = torch.tensor(transforms.mean), torch.tensor(transforms.std)
    return std / wanted_std, (mean - wanted_mean) / wanted_std


def _size(transforms: Any, image_size: int | None) -> tuple[int, int] | None:
    side = image_size or (transforms.crop_size[0] if transforms else None)
    return (side, side) if side else None
