from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarun.core.episodes import Bits, Ints, draw_bits
from metarun.core.tasks import EpisodePlan, EpisodeShape
from metarun.data.files.splits import SPLITS
from metarun.data.images import ImageTasks, Labels, Rotation


class Photographed(ImageTasks):
    """The images of a source on photographs: each is its distance, pixel by pixel, to a random piece of a photograph.

    Ink turns the photograph behind it into its negative, as in MNIST-M, so that neither ink nor paper has a colour of
    its own. An image has the same photograph whenever it is seen, of a class of the same split.

    Args:
        plan, device: from the runner.
        open_source: from the runner; opens the source that a name of `data=` stands for.
        images, photos: names of the two sources; images of one channel are repeated.
        photo_seed: which piece of which photograph is behind an image.
        rotation, labels: see ImageTasks; image and photograph are turned together.
    Raises: ValueError if one of the sources has no images, or photographs are smaller than images.
    Reference: of MNIST-M, Ganin et al. Domain-Adversarial Training of Neural Networks. JMLR 2016. arXiv:1505.07818,
        section 5.2.4.
    """

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        open_source: Callable[[str, EpisodePlan], Any],
        images: str,
        photos: str,
        photo_seed: int,
        rotation: Rotation,
        labels: Labels = "shuffled",
    ) -> None:
        least = EpisodePlan(EpisodeShape(2, 1, 1), EpisodeShape(2, 1, 1), plan.seed, plan.eval_seed, plan.splits)
        opened = {}
        for key, name in (("images", images), ("photos", photos)):
            opened[key] = open_source(name, least)
            if not isinstance(opened[key], ImageTasks):
                raise ValueError(f"data.{key}={name} is not a source of images; data.{key}=cifar_fs is one")
        front, back = opened["images"], opened["photos"]
        side, room = front.pixels.shape[-1], back.pixels.shape[-1]
        if side > room:
            raise ValueError(
                f"data.photos={photos} has images of {room} pixels, and those of data.images={images} have {side}"
            )
        pixels = torch.zeros(len(front.pixels), 3, side, side, dtype=torch.uint8)
        for split in SPLITS:
            rows, behind = front.find_rows(split), back.find_rows(split)
            bits = draw_bits(photo_seed, "photos", rows, 3)  # of the photograph, and its piece's place
            pieces = _cut(
                back.pixels, behind[_below(bits[:, 0], len(behind))], _below(bits[:, 1:], room - side + 1), side
            )
            pixels[torch.from_numpy(rows)] = _differ(front.pixels[torch.from_numpy(rows)].cpu(), pieces)
        self.world = front.world or type(front).__name__
        own, split = front.take_apart()
        super().__init__(replace(own, pixels=pixels), split, plan, rotation, device, labels=labels)


def _below(bits: Bits, n: int) -> Ints:
    """Turn random words into whole numbers in 0..n-1."""
    return ((bits >> np.uint64(32)) * np.uint64(n) >> np.uint64(32)).astype(np.int64)


def _cut(photos: Tensor, rows: Ints, corners: Ints, side: int) -> Tensor:
    """Cut the piece at its corner [R, 2] out of each of the photographs `rows` [R]: [R, C, side, side] uint8."""
    chosen = photos[torch.from_numpy(rows)].cpu()
    down, right = (torch.from_numpy(corners[:, axis, None] + np.arange(side)) for axis in (0, 1))  # [R, side]
    shape = (*chosen.shape[:2], side, chosen.shape[3])
    chosen = chosen.gather(2, down[:, None, :, None].expand(shape))
    return chosen.gather(3, right[:, None, None, :].expand(*shape[:3], side))


def _differ(images: Tensor, photos: Tensor) -> Tensor:
    """Return |image - photograph| [R, 3, H, W] uint8, of images and photographs of one or three channels."""
    return (images.to(torch.int16) - photos.to(torch.int16)).abs().to(torch.uint8).expand(-1, 3, -1, -1)
