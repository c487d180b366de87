from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch

from metarun.core.ranges import PositiveInt
from metarun.core.tasks import EpisodePlan
from metarun.data.augment import Augment, Look
from metarun.data.files.decode import Fit, Interpolation, Scale, load_images
from metarun.data.files.find import SUFFIXES, ImageFile, list_images, make_stamp
from metarun.data.files.splits import SPLITS, check_split, draw_split, read_split_file, write_split_file
from metarun.data.images import ImageTasks, Rotation

SPLIT_OF_FOLDER = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""The split that a folder of this name is taken for."""

log = logging.getLogger(__name__)


class Folder(ImageTasks):
    """Your own images: a folder or zip file in which every folder that holds images is a class.

    The first run splits the classes at random and writes the split to a file beside the images, where you can read
    and change it. If the images lie in folders train, val and test that share no class, those are the split.

    Args:
        plan, device: from the runner.
        path: the folder or zip file.
        cache: folder of the decoded images.
        split: a file of lines `train CLASS`, or a folder with train.txt, val.txt and test.txt. The file is written if
            it does not exist. None stands for a file in `path` that is named after fractions and seed.
        fractions: shares of the classes for training, validation and test; they sum to 1.
        split_seed: seed of the random split.
        least: leave out classes with fewer images than this.
        image_size: side in pixels that the images are scaled to.
        channels: 3, or 1 for gray.
        fit: `crop` cuts the middle square out of an image, `stretch` deforms it.
        interpolation: Pillow's filter.
        mean, std, augment: see metarun/data/augment.py.
        rotation, trainval: see ImageTasks.
    Raises: ValueError naming the files that cannot be read, or saying how many classes or images are missing.
    """

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        path: str | None,
        cache: str,
        split: str | None,
        fractions: Sequence[float],
        split_seed: int,
        least: PositiveInt,
        image_size: PositiveInt,
        channels: int,
        fit: Fit,
        interpolation: Interpolation,
        mean: Sequence[float],
        std: Sequence[float],
        augment: Augment,
        rotation: Rotation,
        trainval: bool,
    ) -> None:
        if path is None:
            raise ValueError("data=folder needs data.path=FOLDER, a folder with a folder of images for each class")
        place, scale, look = (
            Path(path).expanduser(),
            Scale(image_size, interpolation, channels, fit),
            Look(mean, std, augment),
        )
        name = place.resolve().stem
        named = "_".join(f"{100 * fraction:g}" for fraction in fractions)
        beside = place if place.is_dir() else place.parent
        file = Path(split).expanduser() if split else beside / f"{name}_split_{named}_seed{split_seed}.txt"
        classes, laid_out = _find_classes(place)
        short = [label for label in classes if len(classes[label]) < least]
        if short:
            log.warning("%d classes with fewer than %d images are left out: %s", len(short), least, _name_some(short))
            classes = {label: files for label, files in classes.items() if label not in short}
        if file.exists():
            chosen = read_split_file(file)
        elif laid_out and split is None:
            chosen, file = {s: [label for label in laid_out[s] if label in classes] for s in SPLITS}, place
        else:
            chosen = draw_split(list(classes), fractions, split_seed)
            write_split_file(file, chosen)
        unused = sorted(set(classes) - {label for labels in chosen.values() for label in labels})
        if unused:
            log.warning("%d classes are in no part of %s and not used: %s", len(unused), file, _name_some(unused))
        try:
            check_split(chosen, {label: len(files) for label, files in classes.items()}, plan, trainval=trainval)
        except ValueError as error:  # found here, before minutes of decoding
            raise ValueError(f"{error}\n{_describe_counts(classes, chosen, place, file)}") from error
        data = load_images(Path(cache), name, make_stamp([place]), lambda: classes, scale)
        super().__init__(data, chosen, plan, rotation, device, look, trainval)

    @staticmethod
    def find_files(path: str | None) -> list[Path]:
        place = Path(path or "").expanduser()
        return [place] if path and place.exists() else []


def _find_classes(place: Path) -> tuple[dict[str, list[ImageFile]], dict[str, list[str]] | None]:
    """Find the images of each class, and the classes of each split if the folders show a split.

    A class is named after the path of its folder, without the part that all folders share and without train, val, test.
    """
    paths: dict[tuple[str, ...], list[ImageFile]] = defaultdict(list)
    for file in list_images(place):
        paths[tuple(file.path.split("/")[:-1])].append(file)
    if not paths:
        raise ValueError(f"there are no images in {place}; known are {' '.join(SUFFIXES)}")
    while len(tops := {path[:1] for path in paths}) == 1 and () not in tops and len(paths) > 1:
        paths = {path[1:]: files for path, files in paths.items()}
    if () in paths:
        raise ValueError(
            f"{paths[()][0].path} and {len(paths[()]) - 1} more images of {place} lie in no class's folder; "
            "put the images of each class in a folder of its own"
        )
    parts = {path[0] for path in paths}
    by_split = len(parts) > 1 and parts <= set(SPLIT_OF_FOLDER) and all(len(path) > 1 for path in paths)
    classes: dict[str, list[ImageFile]] = defaultdict(list)
    laid_out: dict[str, list[str]] = {name: [] for name in SPLITS}
    for path, files in sorted(paths.items()):
        label = "/".join(path[1:] if by_split else path)
        classes[label] += files
        if by_split:
            laid_out[SPLIT_OF_FOLDER[path[0]]].append(label)
    apart = by_split and all(laid_out.values()) and sum(map(len, laid_out.values())) == len(classes)
    if by_split and not apart:
        log.info("the folders %s are merged: few-shot splits need classes of their own", ", ".join(sorted(parts)))
    return dict(classes), laid_out if apart else None


def _describe_counts(classes: dict[str, list[ImageFile]], chosen: dict[str, list[str]], place: Path, file: Path) -> str:
    sizes = "/".join(str(len(chosen[s])) for s in SPLITS)
    images = sum(map(len, classes.values()))
    return (
        f"{place} has {len(classes)} classes, {images} images; {file} splits them {sizes} into train, val, test: edit "
        "it, or set data.fractions (and data.least=N to leave out classes with fewer images)"
    )


def _name_some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
