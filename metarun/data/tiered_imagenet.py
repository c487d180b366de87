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


class TieredImageNet(ImageTasks):
    """tiered-ImageNet: 608 classes of ImageNet, 779,165 images of 84x84, split 351/97/160 by higher category.

    The 34 categories above the classes are split, not the classes, so test classes are unlike those of training.

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
    Reference: Ren et al. Meta-Learning for Semi-Supervised Few-Shot Classification. ICLR 2018. arXiv:1803.00676,
        section 4.1.
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
        split, scale = read_split("tiered_imagenet"), Scale(image_size, interpolation, fit=fit)
        data = imagenet(Path(root), Path(cache), "tiered_imagenet", split, scale)
        super().__init__(data, split, plan, rotation, device, Look(mean, std, augment), trainval)

    @staticmethod
    def found(root: str) -> list[Path]:
        return files_of(Path(root), "tiered_imagenet")
