from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch

from metarun.core.ranges import PositiveInt
from metarun.core.tasks import EpisodePlan
from metarun.data.augment import Augment, Look
from metarun.data.files.checked import checked
from metarun.data.files.decode import Fit, Interpolation, Scale, decoded
from metarun.data.files.find import SUFFIXES, ImageFile, image_files, stamp
from metarun.data.files.splits import draw_split, read_split_file, write_split_file
from metarun.data.images import SPLITS, ImageTasks, Rotation

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

log = logging.getLogger(__name__)


class Folder(ImageTasks):
    """Your own images: a folder, or a zip file, in which every folder that holds images is a class.

    Which classes train, validate and test is drawn once and written to a file beside the images, where it can be
    read and changed. If the images lie in folders train, val and test that share no class, those are the split.

    Args:
        plan, device: from the runner.
        path: the folder or zip file.
        cache: folder of the decoded images.
        split: a file of lines `train CLASS`, or a folder of train.txt, val.txt and test.txt; written if it is not
            there. None: a file named after fractions and seed, in `path`.
        fractions: of the classes that train, validate and test.
        split_seed: seed of the draw.
        least: classes with fewer images are left out.
        image_size: side of the images in pixels, at any size of the originals.
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
        classes, laid_out = _classes(place)
        short = [label for label in classes if len(classes[label]) < least]
        if short:
            log.warning("%d classes with fewer than %d images are left out: %s", len(short), least, _some(short))
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
            log.warning("%d classes are in no part of %s and not used: %s", len(unused), file, _some(unused))
        try:
            checked(chosen, {label: len(files) for label, files in classes.items()}, plan, trainval=trainval)
        except ValueError as error:  # before minutes of decoding
            raise ValueError(f"{error}\n{_counts(classes, chosen, place, file)}") from error
        data = decoded(Path(cache), name, stamp([place]), lambda: classes, scale)
        super().__init__(data, chosen, plan, rotation, device, look, trainval)

    @staticmethod
    def found(path: str | None) -> list[Path]:
        place = Path(path or "").expanduser()
        return [place] if path and place.exists() else []


def _classes(place: Path) -> tuple[dict[str, list[ImageFile]], dict[str, list[str]] | None]:
    """The images of each class, and the classes of each split if the folders say so.

    A class is named after its folder's path below what all of them share and below train, val and test.
    """
    paths: dict[tuple[str, ...], list[ImageFile]] = defaultdict(list)
    for file in image_files(place):
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
    by_split = len(parts) > 1 and parts <= set(SPLIT_NAMES) and all(len(path) > 1 for path in paths)
    classes: dict[str, list[ImageFile]] = defaultdict(list)
    laid_out: dict[str, list[str]] = {name: [] for name in SPLITS}
    for path, files in sorted(paths.items()):
        label = "/".join(path[1:] if by_split else path)
        classes[label] += files
        if by_split:
            laid_out[SPLIT_NAMES[path[0]]].append(label)
    apart = by_split and all(laid_out.values()) and sum(map(len, laid_out.values())) == len(classes)
    if by_split and not apart:
        log.info("the folders %s are merged: few-shot splits need classes of their own", ", ".join(sorted(parts)))
    return dict(classes), laid_out if apart else None


def _counts(classes: dict[str, list[ImageFile]], chosen: dict[str, list[str]], place: Path, file: Path) -> str:
    sizes = "/".join(str(len(chosen[s])) for s in SPLITS)
    images = sum(map(len, classes.values()))
    return (
        f"{place} has {len(classes)} classes, {images} images; {file} splits them {sizes} into train, val, test: edit "
        "it, or set data.fractions (and data.least=N to leave out classes with fewer images)"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
