from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple, Unpack

import torch

from metarun.core.postponed import write_later
from metarun.core.ranges import Ascending, FilePath, PositiveInt
from metarun.core.tasks import EpisodePlan
from metarun.data.files.decode import Channels, Fit, Scale
from metarun.data.files.find import list_files, make_stamp
from metarun.data.files.layout import Layout, name_some
from metarun.data.files.lists import choose_lists, find_lists, read_lists
from metarun.data.files.load import load_images
from metarun.data.files.own import read_layout
from metarun.data.files.split_file import normalise_name, read_split_file, write_split_file
from metarun.data.files.splits import SPLITS, advise_ways, check_split, complete_split, count_ways, draw_split
from metarun.data.files.table import ImageIndex
from metarun.data.photos import PhotoSettings, PhotoTasks

log = logging.getLogger(__name__)


class Folder(PhotoTasks):
    """Your own images: a folder or zip file in which every folder that holds images is a class.

    If folders are named after train, val and test (in any case, or base and novel, meta_train, validation ...) and
    share no class, those are the split; and so are lists of such names beside the images. Where they are an ordinary
    data set, with images of each class in train, they are merged. Otherwise the first run splits the classes at random
    and writes the split to a file beside the images, where you can read and change it. If it is unclear which classes
    are to be tested on, you are asked.

    Args:
        plan, device: from the runner.
        path: a folder, a zip or tar file, or a packed file, see metarun/data/files/packed.py.
        labels: a table (.csv, .tsv, .txt, .json) of files, their classes and, if it has them, their splits, whatever
            its columns are called; None takes folders for classes.
        split: a file of lines `train CLASS`, or a folder with lists train, val and test of classes or of their images
            (.txt, .csv, .json). The file is written if it does not exist. `draw` stands for a file in `path` that is
            named after fractions and seed, `folders` for what folders or lists are named; val or test is then drawn
            from train if there is none of it. None is one of the two.
        fractions: shares of the classes for training, validation and test; they sum to 1.
        split_seed: seed of the random split.
        least: leave out classes with fewer images than this.
        channels: 3, or 1 for gray.
        range: values of black and white in gray images of more than 8 bits; None guesses them from all images.
        fit: `crop` cuts the middle square out of an image, `stretch` deforms it.
        photos: see PhotoSettings.
    Raises: ValueError naming the files that cannot be read, or saying how many classes or images are missing.
    """

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        path: FilePath | None,
        labels: FilePath | None,
        split: FilePath | None,
        fractions: Sequence[float],
        split_seed: int,
        least: PositiveInt,
        channels: Channels,
        range: Annotated[Sequence[float], Ascending()] | None,
        fit: Fit,
        **photos: Unpack[PhotoSettings],
    ) -> None:
        if path is None:
            raise ValueError("data=folder needs data.path=FOLDER, a folder with a folder of images for each class")
        place = Path(path).expanduser()
        black_and_white = None if range is None else (range[0], range[1])
        scale = Scale(photos["image_size"], photos["interpolation"], channels, fit, range=black_and_white)
        name = place.resolve().stem
        layout = read_layout(place, Path(labels).expanduser() if labels else None)
        short = {label for label, files in layout.classes.items() if len(files) < least}
        if short:
            text = name_some(sorted(short))
            log.warning("%d classes with fewer than %d images are left out: %s", len(short), least, text)
        classes = {label: files for label, files in layout.classes.items() if label not in short}
        named = "_".join(f"{100 * fraction:g}" for fraction in fractions)
        beside = place if place.is_dir() else place.parent
        file = beside / f"{name}_split_{named}_seed{split_seed}.txt"
        chosen = _choose_split(layout, place, split, file, list(classes), fractions, split_seed, plan)
        parts = {part: [label for label in labels if label not in short] for part, labels in chosen.parts.items()}
        unused = sorted(set(classes) - {label for labels in parts.values() for label in labels})
        if unused:
            log.warning(
                "%d classes are in no part of %s and not used: %s", len(unused), chosen.origin, name_some(unused)
            )
        if tests := sorted(set(parts["train"]) & set(layout.parts["test"])):
            log.warning(
                "%d classes that have images below a folder of test classes are trained on: %s",
                len(tests),
                name_some(tests),
            )
        sizes = {label: len(files) for label, files in classes.items()}
        try:
            _check_filled(parts, plan)
            check_split(parts, sizes, plan, trainval=photos["trainval"])
        except ValueError as error:  # found here, before minutes of decoding
            tables = f"\nIf a table tells the classes, set data.labels=FILE: {layout.tables}" if layout.tables else ""
            raise ValueError(f"{error}\n{_describe_counts(sizes, parts, place, chosen, plan)}{tables}") from error
        stamp = make_stamp([place])
        if labels:
            stamp += repr([(label, [file.path for file in files]) for label, files in classes.items()])
        data = load_images(Path(photos["cache"]), name, stamp, lambda: classes, scale)
        super().__init__(data, parts, plan, device, **photos)
        if chosen.drawn:  # what was refused must not be found by the next run
            write_later(partial(write_split_file, chosen.origin, parts))


class Choice(NamedTuple):
    """A split, the file or folder that it is of, and whether it was drawn, so that the file is still to be written."""

    parts: dict[str, list[str]]
    origin: Path
    drawn: bool


def _choose_split(
    layout: Layout,
    place: Path,
    asked: str | None,
    beside: Path,
    classes: Sequence[str],
    fractions: Sequence[float],
    seed: int,
    plan: EpisodePlan,
) -> Choice:
    """Choose the split that `data.split=asked` stands for.

    Args:
        beside: the file for a split that is drawn where no file is asked for.
    Raises: ValueError if nothing is asked for and the folders are unclear, or they do not show the split asked for.
    """
    completed = complete_split(layout.parts, fractions, seed)
    if asked == "folders":
        if completed is None:
            reason = layout.unclear or "no folders with classes of their own are named train, val, test"
            raise ValueError(f"data.split=folders: {reason} in {place}. Set data.split=draw or data.split=FILE")
        return Choice(completed, place, False)
    file = beside if asked in (None, "draw") else Path(asked).expanduser()
    if file.exists():
        return Choice(_read_split(file, layout), file, False)
    if asked is None and layout.is_split:
        return Choice(layout.parts, place, False)
    if asked is None and layout.unclear:
        raise ValueError(_ask(layout, place, completed))
    return Choice(draw_split(classes, fractions, seed, count_ways(plan)), file, True)


def _read_split(file: Path, layout: Layout) -> dict[str, list[str]]:
    """Read the split in a file of lines `train CLASS`, or in lists in a folder."""
    lists = choose_lists(find_lists(list_files(file))) if file.is_dir() else None
    if lists:
        images = {image.path: label for label, images in layout.classes.items() for image in images}
        index = ImageIndex([image for images in layout.classes.values() for image in images])
        if parts := read_lists([*lists.values()], layout.classes, index, images):
            return parts
    spelled = {normalise_name(label): label for label in layout.classes}
    read = read_split_file(file)
    return {s: sorted(spelled.get(label, label) for label in read[s]) for s in SPLITS}


def _ask(layout: Layout, place: Path, completed: Mapping[str, list[str]] | None) -> str:
    ways = ["data.split=FILE: lines `train CLASS`, `val CLASS`, `test CLASS`"]
    if completed:
        counts = ", ".join(f"{part} {len(completed[part])}" for part in SPLITS)
        ways.append(f"data.split=folders: as folders are named, and what has none is drawn from train ({counts})")
    ways.append("data.split=draw: drawn from all classes, whatever folders they lie in")
    return (
        f"it is unclear which classes of {place} are to be tested on: {layout.unclear}. Set one of\n    "
        + "\n    ".join(ways)
    )


def _check_filled(parts: Mapping[str, Sequence[str]], plan: EpisodePlan) -> None:
    """Raises: ValueError if a split that tasks are drawn from has no classes."""
    if empty := [part for part in plan.splits if not parts[part]]:
        raise ValueError(f"there are no classes in {', '.join(empty)}")


def _describe_counts(
    sizes: Mapping[str, int], parts: Mapping[str, Sequence[str]], place: Path, chosen: Choice, plan: EpisodePlan
) -> str:
    counts = "/".join(str(len(parts[s])) for s in SPLITS)
    held = f"{place} has {len(sizes)} classes, {sum(sizes.values())} images"
    if chosen.drawn:
        said = f"drawn, they are {counts} in train, val, test. {advise_ways(len(sizes), plan)}".rstrip()
    else:
        remedy = "move classes" if chosen.origin == place else "edit it"
        said = (
            f"{chosen.origin} splits them {counts} into train, val, test: {remedy}, or set data.split to another file"
        )
    return f"{held}; {said} (data.least=N leaves out classes with fewer images)"
