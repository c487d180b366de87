from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Unpack

import torch

from metarun.core.known_source import NUMBERED
from metarun.core.ranges import FilePath
from metarun.core.tasks import EpisodePlan
from metarun.data.counts import warn_if_not_whole
from metarun.data.files.decode import Fit, Scale
from metarun.data.files.find import find_alike, make_stamp
from metarun.data.files.known import Split, describe_places, find_split, read_set
from metarun.data.files.load import load_images
from metarun.data.files.splits import read_split
from metarun.data.images import ImageClasses
from metarun.data.photos import PhotoSettings, PhotoTasks
from metarun.data.places.imagenet import NAMES, find_files

WNID = re.compile(r"(?:^|/)(n\d{8})")
"""The id of a class, as the name of a folder or at the beginning of a file's name."""

PUBLISHED: dict[str, tuple[int, int | None]] = {"mini_imagenet": (60_000, 600), "tiered_imagenet": (779_165, None)}
"""Images of each set, and of each of its classes if all have as many."""


class ImageNetTasks(PhotoTasks):
    """mini-ImageNet and tiered-ImageNet: classes of ImageNet, images of 84x84.

    mini-ImageNet has 100 classes of 600 images, split 64/16/20. The classes and the split are those of Ravi and
    Larochelle; Vinyals' own were never published. tiered-ImageNet has 608 classes and 779,165 images, split 351/97/160
    by the 34 categories above the classes, so that test classes are unlike training classes.

    Args:
        plan, device: from the runner.
        name: `mini_imagenet` or `tiered_imagenet`.
        root: the folder where it lies, see `load_imagenet`.
        fit: what happens to an image that is not square: `crop` cuts out the middle square, `stretch` deforms it. The
            usual 84x84 files are square.
        photos: see PhotoSettings.
    Reference: Ravi, Larochelle. Optimization as a Model for Few-Shot Learning. ICLR 2017, section 5.1 (mini).
        Ren et al. Meta-Learning for Semi-Supervised Few-Shot Classification. ICLR 2018. arXiv:1803.00676, section 4.1
        (tiered).
    """

    world = "imagenet"

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        name: Literal["mini_imagenet", "tiered_imagenet"],
        root: FilePath,
        fit: Fit,
        **photos: Unpack[PhotoSettings],
    ) -> None:
        split, scale = read_split(name), Scale(photos["image_size"], photos["interpolation"], fit=fit)
        data = load_imagenet(Path(root), Path(photos["cache"]), name, split, scale)
        if (own := find_split(data.names, split)) != split:
            self.world += f"{NUMBERED}{name}"
        super().__init__(data, own, plan, device, **photos)
        warn_if_not_whole(name, self.info.facts["images"], *PUBLISHED[name])


def load_imagenet(root: Path, cache: Path, name: str, split: Split, scale: Scale) -> ImageClasses:
    """Load the images of the set `name`, in the order of their names.

    They may lie in `root` as an archive called as the set is, or in a folder called so: as archives, as packed files,
    see metarun/data/files/packed.py, or as images whose folder is named after their class or whose own name begins
    with its id.

    Raises: ValueError if there are none, or one cannot be read.
    """
    found = find_files(str(root), name)
    if not found:
        held = describe_places(find_alike(root.expanduser(), *NAMES[name]))
        raise ValueError(
            f"no {name} in {root}, and it may not be downloaded freely. {held}Put its images into {root / name}, in "
            "folders named after their classes (n01532829 ...), or as zip, tar, pickle, npz or parquet files, or set "
            "paths.data=FOLDER (or METARUN_DATA)"
        )
    return load_images(cache, name, make_stamp(found), lambda: read_set(found, split, _find_wnid), scale)


def _find_wnid(path: str) -> str:
    label = WNID.findall(path)
    if not label:
        raise ValueError(f"{path} has no class: neither its folder nor its name begins as n01532829")
    return str(label[-1])
