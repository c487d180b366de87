"""Settings that the sources of photos share, and the tasks made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict, Unpack

import torch

from metarun.core.ranges import FilePath, PositiveInt
from metarun.core.tasks import EpisodePlan
from metarun.data.augment import Augment, Look
from metarun.data.files.decode import Interpolation
from metarun.data.images import ImageClasses, ImageTasks, Rotation


class PhotoSettings(TypedDict):
    """Settings of every source of photos.

    Attributes:
        cache: folder of the decoded images.
        image_size: side in pixels that the images are scaled to.
        interpolation: Pillow's filter for that.
        mean, std, augment, views: see metarun/data/augment.py.
        rotation, trainval: see ImageTasks.
    """

    cache: FilePath
    image_size: PositiveInt
    interpolation: Interpolation
    mean: Sequence[float]
    std: Sequence[float]
    augment: Augment
    views: PositiveInt
    rotation: Rotation
    trainval: bool


class PhotoTasks(ImageTasks):
    """Tasks of photos, by the settings that sources of photos share."""

    def __init__(
        self,
        data: ImageClasses,
        split: Mapping[str, list[str]],
        plan: EpisodePlan,
        device: torch.device,
        **photos: Unpack[PhotoSettings],
    ) -> None:
        look = Look(photos["mean"], photos["std"], photos["augment"], photos["views"])
        super().__init__(data, split, plan, photos["rotation"], device, look, photos["trainval"])
