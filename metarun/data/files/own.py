"""What somebody's own images show of classes and splits: folders, archives, packed files, tables beside them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from metarun.data.files.archives import is_archive
from metarun.data.files.find import count_endings, list_files
from metarun.data.files.image_file import SUFFIXES, ImageFile, is_image
from metarun.data.files.known import TREES
from metarun.data.files.labelled import Labelled, write_label
from metarun.data.files.labels import group_labelled, read_labels
from metarun.data.files.layout import Layout, explain_parts, find_shared, name_some, read_tree
from metarun.data.files.lists import choose_lists, find_lists, read_labels_of, read_lists
from metarun.data.files.packed import UNDERSTOOD, describe_left_out, read_packed
from metarun.data.files.shards import join_archives, open_archives, read_classes
from metarun.data.files.split_file import normalise_name
from metarun.data.files.splits import SPLITS
from metarun.data.files.table import ENDINGS, ImageIndex, read_table

log = logging.getLogger(__name__)

INSTEAD = {
    (".dcm", ".dicom", ".nii"): "to be exported to PNG, in a window that shows what is to be seen",
    (".heic", ".heif", ".raw", ".cr2", ".nef", ".svg"): "to be saved as JPEG or PNG",
    (".npy", ".mat", ".hdf5", ".h5"): "to be saved as an npz of images and labels",
    (".tfrecord", ".tfrecords"): "to be written as images into folders, or as parquet",
}
"""What to do with files that are not read, by their endings."""


def read_layout(place: Path, labels: Path | None = None) -> Layout:
    """Find the classes in a folder, an archive or a packed file, and the splits if something tells them.

    Args:
        labels: a table of files and their classes; None takes folders for classes.
    Raises: ValueError if there are no images, or some have no class, with what lies there.
    """
    files = list_files(place)
    inside = [] if any(is_image(file.path) for file in files) else open_archives(place, files)
    if labels is None and (labelled := read_classes(inside or files)):
        return _group(labelled)
    files = [*files, *join_archives(inside)]
    images = [file for file in files if is_image(file.path)]
    others = [file for file in files if not is_image(file.path) and not is_archive(file.path)]
    if not images:
        return _read_packed(place, files)
    if labels is not None:
        told = read_labels(labels, images)
        return _split(Layout(group_labelled(images, told.classes), told.parts))
    if beside := [file.path for file in others if "/" in file.path]:  # lists and notes lie at the top
        log.warning("files of %s that are no images by their names are left out: %s", place, count_endings(beside))
    return _read_folders(place, images, others)


def _read_folders(place: Path, images: Sequence[ImageFile], others: Sequence[ImageFile]) -> Layout:
    """Take folders for classes, or what three lists of images say; and the split of such lists."""
    lists = find_lists(others)
    chosen, index = choose_lists(lists), ImageIndex(images if lists else ())
    folders = {file.path.rpartition("/")[0] for file in images}
    if "" in folders or len(folders) == 1:
        told = read_labels_of(chosen, index) if chosen else None
        if told is None:
            raise ValueError(_explain_flat(place, images, others))
        return _note(chosen, _split(Layout(group_labelled(images, told.classes), told.parts)))
    tables = [file.path for file in others if file.path.lower().endswith(ENDINGS) and file not in lists]
    layout = replace(read_tree(images, place), tables=name_some(tables))
    if any(layout.parts.values()) or not lists:
        return layout
    class_of = {file.path: label for label, files in layout.classes.items() for file in files}
    parts = read_lists(lists, layout.classes, index, class_of)
    beside = f"lists of splits lie beside the images ({name_some([file.path for file in lists])})"
    if parts is None:
        return replace(layout, unclear=beside)
    listed = _split(replace(layout, parts=parts))
    if not listed.unclear and len(parts["train"]) == len(layout.classes):  # lists of images of each class
        return layout
    if not listed.is_split or chosen is None:
        return replace(listed, unclear=f"{beside}, and {listed.unclear}" if listed.unclear else beside)
    return _note(chosen, listed)


def _split(layout: Layout) -> Layout:
    """Return the layout with what is unclear of its parts, if it has any."""
    return replace(layout, unclear=explain_parts(layout.parts) if any(layout.parts.values()) else "")


def _note(lists: Mapping[str, ImageFile] | None, layout: Layout) -> Layout:
    log.info("the classes are split as %s say", ", ".join(file.path for file in (lists or {}).values()))
    return layout


def _group(images: Sequence[Labelled]) -> Layout:
    """Group labelled images; the splits that their files are named after are the split if they share no class."""
    classes: dict[str, list[ImageFile]] = defaultdict(list)
    parts: dict[str, dict[str, None]] = {part: {} for part in SPLITS}
    for one in images:
        label = normalise_name(write_label(one.label))
        classes[label].append(one.file)
        if one.part:
            parts[one.part][label] = None
    if not parts["val"] and not parts["test"]:  # as the Hub calls what is not split
        parts["train"].clear()
    return _split(Layout(dict(sorted(classes.items())), {part: list(labels) for part, labels in parts.items()}))


def _read_packed(place: Path, files: Sequence[ImageFile]) -> Layout:
    packed = read_packed(files)
    why = describe_left_out(packed.left_out)
    if not packed.images:
        raise ValueError(_explain_nothing(place, [file.path for file in files], why))
    if why:
        log.warning("left out: %s", why)
    layout = _group(packed.images)
    numbered = any(isinstance(one.label, int) for one in packed.images)
    if len(packed.read) > 1 and numbered and (shared := find_shared(layout.parts)):
        raise ValueError(
            f"{name_some(packed.read)} number their classes from {shared[0]} on, each for itself or all alike: that is "
            "not told. Give the classes names (catname2label), or each a number of its own"
        )
    return layout


def _explain_nothing(place: Path, paths: Sequence[str], why: str) -> str:
    endings = {PurePosixPath(path).suffix.lower() for path in paths}
    found = ((sorted(endings & set(kinds)), what) for kinds, what in INSTEAD.items())
    todo = [f"{' '.join(kinds)} are {what}" for kinds, what in found if kinds]
    held = [f"it holds {count_endings(paths)}" if paths else "", *todo, why]
    return (
        f"there are no images in {place}; {''.join(f'{one}; ' for one in held if one)}known are {' '.join(SUFFIXES)}. "
        f"Understood are {TREES}; {UNDERSTOOD}"
    )


def _explain_flat(place: Path, images: Sequence[ImageFile], others: Sequence[ImageFile]) -> str:
    """Say that the images are not sorted into folders, and which tables beside them may tell their classes."""
    tables = [_describe_table(file) for file in others if file.path.lower().endswith((*ENDINGS, ".mat", ".xml"))]
    flat = [file.path for file in images if "/" not in file.path]
    where = (
        f"{len(flat)} images of {place} lie in no class's folder, {flat[0]} among them" if flat
        else f"all {len(images)} images of {place} lie in one folder, {images[0].path.rpartition('/')[0]}"
    )  # fmt: skip
    return (
        f"{where}; put the images of each class in a folder of its own, or set data.labels=FILE, a table "
        f"({', '.join(ENDINGS)}) of files, their classes and, if it has them, their splits. Beside the images lie: "
        f"{name_some(tables) or 'no tables'}"
    )


def _describe_table(file: ImageFile) -> str:
    try:
        columns = read_table(file.read(), file.path).columns if file.path.lower().endswith(ENDINGS) else ()
    except ValueError:
        columns = ()
    return f"{file.path} with the columns {', '.join(columns)}" if columns else file.path
