from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from metarun.core.ranges import PositiveInt
from metarun.core.tasks import EpisodePlan
from metarun.data.augment import Augment, Look
from metarun.data.files.decode import Fit, Interpolation, Scale
from metarun.data.files.splits import read_split
from metarun.data.imagenet import files_of, imagenet
from metarun.data.images import ImageTasks, Rotation


class MiniImageNet(ImageTasks):
    """mini-ImageNet: 100 classes of ImageNet, 600 images of 84x84 each, split 64/16/20.

    The classes and the split are those of Ravi and Larochelle; Vinyals' own were never published.

    Args:
        plan, device: from the runner.
        root: where it lies, see metarun/data/imagenet.py.
        cache: folder of the decoded images.
        image_size: side in pixels that the images are scaled to.
        interpolation: Pillow's filter for that.
        fit: `crop` cuts the middle square out of a larger image first, `stretch` deforms it; the usual 84x84 files
            are square.
        mean, std, augment: see metarun/data/augment.py.
        rotation, trainval: see ImageTasks.
    Reference: Ravi, Larochelle. Optimization as a Model for Few-Shot Learning. ICLR 2017, section 5.1.
    """

    world = "imagenet"

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        root: str,
        cache: str,
        image_size: PositiveInt,
        interpolation: Interpolation,
        fit: Fit,
        mean: Sequence[float],
        std: Sequence[float],
        augment: Augment,
        rotation: Rotation,
        trainval: bool,
    ) -> None:
        split, scale = read_split("mini_imagenet"), Scale(image_size, interpolation, fit=fit)
        data = imagenet(Path(root), Path(cache), "mini_imagenet", split, scale)
        super().__init__(data, split, plan, rotation, device, Look(mean, std, augment), trainval)

    @staticmethod
    def found(root: str) -> list[Path]:
        return files_of(Path(root), "mini_imagenet")
