from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metarun.core.tasks import EpisodePlan
from metarun.data.augment import Augment, Look
from metarun.data.files.splits import LEAST, USUAL, draw_split
from metarun.data.images import ImageClasses, ImageTasks, Rotation


class ImageSource(ImageTasks):
    """The base class of a source of your own that has its images in memory, as arrays by class.

    It draws the tasks, examples for pre-training and names for pictures; a subclass reads the images and calls this
    constructor. Its YAML begins with `defaults: [/tasks@_here_, _self_]`, which gives the settings of tasks.

    Args:
        plan, device: from the runner; a subclass passes them on.
        classes: uint8 images of each class, [R, H, W] or [R, H, W, C], of one shape.
        split: class names of train, val and test, which share none; None draws 64, 16 and 20 %, and five of each at
            least where there are fifteen.
        mean, std: of the images, in units of 0..1, one number or one a channel; inputs are (x - mean) / std.
        augment: `standard` crops, flips and recolours training images, `randaugment` is stronger.
        rotation, trainval: see ImageTasks.
    Raises: ValueError if the images are of other numbers or shapes, or there are too few classes or images.
    """

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        classes: Mapping[str, NDArray[Any]],
        split: Mapping[str, Sequence[str]] | None = None,
        *,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        augment: Augment = "none",
        rotation: Rotation = "none",
        trainval: bool = False,
    ) -> None:
        names = sorted(classes)
        images = [_take(name, np.asarray(classes[name])) for name in names]  # [R, H, W, C] each
        if len(shapes := {one.shape[1:] for one in images}) > 1:
            raise ValueError(f"the images have {len(shapes)} shapes, {sorted(shapes)[:3]}: scale them to one")
        pixels = torch.from_numpy(np.concatenate(images).transpose(0, 3, 1, 2).copy())  # [R, C, H, W]
        starts = np.cumsum([0, *map(len, images)], dtype=np.int64)
        parts = split or draw_split(names, USUAL, 0, LEAST)
        look = Look(mean, std, augment)
        data = ImageClasses(pixels, starts, names)
        super().__init__(data, {p: list(labels) for p, labels in parts.items()}, plan, rotation, device, look, trainval)


def _take(name: str, images: NDArray[Any]) -> NDArray[np.uint8]:
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(
            f"the images of class {name} are {images.dtype} {list(images.shape)}: they are to be uint8 in 0..255, "
            "[R, H, W] or [R, H, W, C]"
        )
    return images if images.ndim == 4 else images[..., None]
