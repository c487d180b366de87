"""Network inputs from pixels: scaled to 0..1, augmented in training, and normalised channel by channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from metarun.core.episodes import Bits, Ints, draw_bits
from metarun.core.ranges import check_choice
from metarun.data.device import to_device

Augment = Literal["none", "standard", "randaugment", "autoaugment", "cutout"]
RANDOM_WORDS: dict[str, int] = {"none": 0, "standard": 6, "randaugment": 3 + 4, "autoaugment": 3 + 5, "cutout": 3 + 2}
"""Random words that one image takes, for each kind of augmentation: three to move and mirror it, where it does."""

JITTER = 0.4
"""Brightness, contrast and saturation are each multiplied by a factor from 1 - JITTER to 1 + JITTER."""


@dataclass(frozen=True)
class Look:
    """How pixels become inputs of a network.

    Args:
        mean, std: of each channel, in units of 0..1; the input is (pixel/255 - mean) / std.
        augment: what happens to each training image separately. All kinds move and mirror it; `standard` then
            recolours it, `randaugment` applies two random operations, `autoaugment` one of 25 pairs of operations, and
            `cutout` covers a square. All but `standard` are for pre-training.
        views: of each support image in validation and test, >= 1: the image, and changed copies of it, by `augment`,
            or by `standard` where that is `none`.
    Raises: ValueError if augment is unknown, or mean and std do not fit together.
    """

    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    augment: Augment = "none"
    views: int = 1

    def __post_init__(self) -> None:
        check_choice("data.augment", self.augment, Augment)
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise ValueError(f"data.mean={self.mean} and data.std={self.std} must be as many, and std above 0")

    def fit_channels(self, channels: int) -> Look:
        """Return the look for images of so many channels: for gray ones, the mean over colours of `mean` and `std`.

        Raises: ValueError if `mean` and `std` are of another number of channels.
        """
        if len(self.mean) in (1, channels):
            return self
        if channels != 1:
            raise ValueError(f"data.mean has {len(self.mean)} numbers for images of {channels} channels")
        mean, std = ((sum(values) / len(values),) for values in (self.mean, self.std))
        return replace(self, mean=mean, std=std)

    @property
    def random_words(self) -> int:
        """Return how many random words one training image takes."""
        return RANDOM_WORDS[self.augment]

    def draw_words(self, seed: int, stream: str, indices: Ints, n_images: int) -> Bits:
        """Draw the random words that augment the images of tasks [B, n_images, random_words]."""
        words = draw_bits(seed, stream, indices, n_images * self.random_words)
        return words.reshape(len(indices), n_images, -1)

    def __call__(self, pixels: Tensor, bits: Bits | None) -> Tensor:
        """Turn pixels [..., C, H, W] uint8 into inputs of the same shape.

        Args:
            bits: random words [..., `random_words`] that augment them; None leaves them as they are.
        """
        if bits is None:
            return self.normalise(_scale(pixels))
        uniform = _to_uniform(bits)  # [R, random_words] for R images
        flat = pixels.flatten(0, -4)
        if self.augment == "standard":
            x = apply_standard(_scale(flat), to_device(uniform, flat.device, torch.get_default_dtype()))
            return self.normalise(x).reshape(pixels.shape)
        drawn, own = to_device(uniform, flat.device), torch.from_numpy(uniform[:, 3:])
        flat = _crop_and_mirror(flat, drawn[:, :2], drawn[:, 2] < 0.5)
        if self.augment == "randaugment":
            from metarun.data.randaugment import randaugment  # which imports torchvision

            flat = randaugment(flat, own)
        elif self.augment == "autoaugment":
            from metarun.data.autoaugment import autoaugment

            flat = autoaugment(flat, own)
        x = self.normalise(_scale(flat))
        return (cut_out(x, drawn[:, 3:]) if self.augment == "cutout" else x).reshape(pixels.shape)

    @property
    def of_views(self) -> Look:
        """The look of the changed copies of support images in validation and test."""
        return replace(self, augment="standard") if self.augment == "none" else self

    def normalise(self, x: Tensor) -> Tensor:
        """Normalise images [..., C, H, W] in 0..1, in place."""
        if not any(self.mean) and set(self.std) == {1}:
            return x
        for channel, mean, std in zip(x.chunk(len(self.mean), -3), self.mean, self.std, strict=True):
            channel.sub_(mean).div_(std)  # plain numbers need no copy to the device
        return x


def apply_standard(x: Tensor, uniform: Tensor) -> Tensor:
    """Crop, mirror and recolour images [R, C, H, W] in 0..1, each by its own random numbers.

    This is the usual training augmentation of the few-shot literature (Chen et al. 2019, Lee et al. 2019): zero padding
    by an eighth of the side and a random crop of the old size, a flip in half of the cases, then jitter of brightness,
    contrast and saturation. torchvision's transforms draw once for a whole batch; here each image has its own draw.

    Args:
        uniform: numbers in 0..1, [R, 6].
    """
    x = _crop_and_mirror(x, uniform[:, :2], uniform[:, 2] < 0.5)
    factor = (1 - JITTER + 2 * JITTER * uniform[:, 3:])[..., None, None, None]  # [R, 3, 1, 1, 1]
    x = (x * factor[:, 0]).clamp_(0, 1)  # brightness
    x = _blend(x, _to_gray(x).mean((1, 2, 3), keepdim=True), factor[:, 1])  # contrast
    return _blend(x, _to_gray(x), factor[:, 2])  # saturation


def cut_out(x: Tensor, place: Tensor) -> Tensor:
    """Set a square of each image [R, C, H, W] to 0, of half its height: around `place` [R, 2] in 0..1, cut at edges.

    Reference: DeVries, Taylor. Improved Regularization of Convolutional Neural Networks with Cutout. 2017.
        arXiv:1708.04552, section 3.2.
    """
    height, width = x.shape[-2:]
    side = 2 * (height // 4)
    first = (place * place.new_tensor([height, width])).long() - side // 2  # [R, 2]
    down, across = (torch.arange(n, device=x.device) - first[:, i, None] for i, n in enumerate((height, width)))
    inside = [(steps >= 0) & (steps < side) for steps in (down, across)]  # [R, H] and [R, W]
    return x.masked_fill((inside[0][:, :, None] & inside[1][:, None])[:, None], 0.0)


def _scale(pixels: Tensor) -> Tensor:
    """Scale pixels in 0..255 to 0..1."""
    return pixels.to(torch.get_default_dtype()).div_(255)


def _to_uniform(bits: Bits) -> NDArray[np.float32]:
    """Turn random words [..., W] into numbers in [0, 1): [R, W] float32."""
    return (np.float32(bits >> np.uint64(40)) * np.float32(2**-24)).reshape(-1, bits.shape[-1])


def _crop_and_mirror(x: Tensor, place: Tensor, mirror: Tensor) -> Tensor:
    """Pad images [R, C, H, W], crop each at `place` [R, 2] in 0..1, and mirror those where `mirror` [R] is set."""
    height, width = x.shape[-2:]
    pad = height // 8
    offset = (place * (2 * pad + 1)).long()  # [R, 2], in 0..2*pad
    rows = offset[:, :1] + torch.arange(height, device=x.device)  # [R, H]
    columns = torch.arange(width, device=x.device).expand(len(x), -1)
    columns = offset[:, 1:] + torch.where(mirror[:, None], columns.flip(1), columns)  # [R, W]
    padded = F.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1)  # [R, H+2p, W+2p, C]
    image = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _to_gray(x: Tensor) -> Tensor:
    from torchvision.transforms.v2.functional import rgb_to_grayscale  # takes two seconds: only to augment

    return rgb_to_grayscale(x) if x.shape[1] == 3 else x


def _blend(x: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return (other + share * (x - other)).clamp_(0, 1)


def make_turn_table(side: int) -> Tensor:
    """Return which pixel of a square image gets to each place by 0 to 3 quarter turns to the left: [4, side * side]."""
    pixels = torch.arange(side * side).view(side, side)
    return torch.stack([torch.rot90(pixels, quarter).flatten() for quarter in range(4)])
