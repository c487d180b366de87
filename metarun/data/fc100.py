from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from metarun.core.ranges import PositiveInt
from metarun.core.tasks import EpisodePlan
from metarun.data.augment import Augment, Look
from metarun.data.cifar100 import cifar100, found
from metarun.data.files.decode import Interpolation, Scale
from metarun.data.files.splits import read_split
from metarun.data.images import ImageTasks, Rotation


class FC100(ImageTasks):
    """FC100: the classes of CIFAR-100 split 60/20/20 by superclass, so that test classes are unlike those of training.

    Of the 20 superclasses 12 train (things, scenes, vehicles, plants, fish, reptiles), 4 validate (large animals,
    small mammals, invertebrates) and 4 test (people, insects, aquatic and medium mammals).

    Args:
        plan, device: from the runner.
        root: where CIFAR-100 lies or is downloaded to, see metarun/data/cifar100.py.
        cache: folder of the decoded images.
        image_size: side in pixels that the 32x32 originals are scaled to.
        interpolation: Pillow's filter for that.
        mean, std, augment: see metarun/data/augment.py.
        rotation, trainval: see ImageTasks.
    Reference: Oreshkin, Rodriguez, Lacoste. TADAM. NeurIPS 2018. arXiv:1805.10123.
    """

    world = "cifar100"
    found = staticmethod(found)

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        root: str,
        cache: str,
        image_size: PositiveInt,
        interpolation: Interpolation,
        mean: Sequence[float],
        std: Sequence[float],
        augment: Augment,
        rotation: Rotation,
        trainval: bool,
    ) -> None:
        data = cifar100(Path(root), Path(cache), Scale(image_size, interpolation))
        super().__init__(data, read_split("fc100"), plan, rotation, device, Look(mean, std, augment), trainval)
