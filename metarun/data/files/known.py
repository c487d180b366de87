"""The images of a published set, in whichever form they lie: folders, archives, packed files."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from pathlib import Path
from typing import NamedTuple

from metarun.data.files.find import describe_contents, group_by_class, list_files
from metarun.data.files.image_file import ImageFile, is_image
from metarun.data.files.labelled import Labelled, write_label
from metarun.data.files.lists import choose_lists, find_lists, read_labels_of
from metarun.data.files.packed import UNDERSTOOD, describe_left_out, read_packed
from metarun.data.files.splits import SPLITS
from metarun.data.files.table import ImageIndex

log = logging.getLogger(__name__)

TREES = "images in folders named after their classes, zip or tar files of such"

TESTS_OF_TRAINING = re.compile(r"(?:^|/)train_(?:val|test)/")
"""Folders of other images of the training classes, beside a folder train_train; nobody trains on them."""

Split = Mapping[str, list[str]]


class Found(NamedTuple):
    """What was read of some places: images with their labels, from what, and why packed files were left out."""

    images: list[Labelled]
    read: list[str]
    left_out: dict[str, str]


def read_set(places: Sequence[Path], split: Split, label_of: Callable[[str], str | None]) -> dict[str, list[ImageFile]]:
    """List the images of each class of a published set.

    Classes are named as in `split`. Packed files that only number or describe their classes show the split by their
    own names: a class is then PART/LABEL, see `find_split`.

    Args:
        places: folders, archives or packed files.
        label_of: names the class of an image by its path; None for an image that is of none.
    Raises: ValueError if the set is not there, or not whole, with what lies there.
    """
    wanted = {label for labels in split.values() for label in labels}
    found = _read(places, label_of, wanted)
    if found.images and found.left_out:
        log.warning("left out: %s", describe_left_out(found.left_out))
    named = [one for one in found.images if one.label in wanted]
    classes = group_by_class((str(one.label), one.file) for one in named) if named else _group_by_part(found.images)
    if problem := _find_lack(classes, found, split):
        why = describe_left_out(found.left_out)
        said = (problem, why) if found.images else (why, describe_places(places).rstrip())
        raise ValueError(". ".join(filter(None, said)))
    return classes


def find_split(names: Collection[str], split: Split) -> dict[str, list[str]]:
    """Return the split of the classes that `read_set` named: the published one, or that of the files."""
    if any(name in names for labels in split.values() for name in labels):
        return dict(split)
    return {part: sorted(name for name in names if name.startswith(f"{part}/")) for part in SPLITS}


def describe_places(places: Sequence[Path], understood: str = f"{TREES}; {UNDERSTOOD}") -> str:
    """Say what lies in places, that nothing of it is read, and what would be; empty without places."""
    held = "; ".join(f"{place} holds {describe_contents(place)}" for place in places)
    return f"{held}, and nothing of it is read. Understood are {understood}. " if held else ""


def _read(places: Sequence[Path], label_of: Callable[[str], str | None], wanted: Set[str]) -> Found:
    found = Found([], [], {})
    for place in places:
        files = list_files(place)
        images, packed = [file for file in files if is_image(file.path)], read_packed(files)
        found.left_out.update(packed.left_out)
        if packed.images:
            found.images.extend(packed.images)
            found.read.extend(packed.read)
            if images:
                log.warning("%d images in %s are not read beside its packed files", len(images), place)
        elif images:
            kept = _leave_out_tests(images, place)
            labels = {file.path: label for file in kept if (label := label_of(file.path))}
            if wanted.isdisjoint(labels.values()):
                labels = dict(_read_table(files, kept)) or labels
            found.images.extend(Labelled("", labels[file.path], file) for file in kept if file.path in labels)
            found.read.append(f"{len(kept)} images")
    return found


def _read_table(files: Sequence[ImageFile], images: Sequence[ImageFile]) -> Mapping[str, str]:
    """Read the classes of images that lie in one folder from the lists of splits beside them, if there are such."""
    lists = choose_lists(find_lists([file for file in files if not is_image(file.path)]))
    told = read_labels_of(lists, ImageIndex(images)) if lists else None
    return told.classes if told else {}


def _leave_out_tests(images: Sequence[ImageFile], place: Path) -> Sequence[ImageFile]:
    tests = {file.path for file in images if TESTS_OF_TRAINING.search(file.path)}
    if not tests or not any("train_train/" in file.path for file in images):
        return images
    log.warning(
        "%d images in the folders train_val and train_test of %s are left out: they are for tests on the training "
        "classes",
        *(len(tests), place),
    )
    return [file for file in images if file.path not in tests]


def _group_by_part(images: Sequence[Labelled]) -> dict[str, list[ImageFile]]:
    """Group images by the split that their file is named after and their label; none if that is no split."""
    parts: dict[str, set[str]] = defaultdict(set)
    for one in images:
        parts[one.label if isinstance(one.label, str) else ""].add(one.part)
    parts.pop("", None)  # numbers may begin anew in each file
    if not all(one.part for one in images) or any(len(of_label) > 1 for of_label in parts.values()):
        return {}
    return group_by_class((f"{one.part}/{write_label(one.label)}", one.file) for one in images)


def _find_lack(classes: Mapping[str, object], found: Found, split: Split) -> str:
    """Say what the classes lack of a published set; empty if they are whole."""
    read = f"read were {', '.join(found.read[:5])}{' ...' * (len(found.read) > 5)}"
    wanted = [label for labels in split.values() for label in labels]
    if found.images and not classes:
        other = found.images[0].label
        return f"{found.read[0]} names its classes {other}, not {wanted[0]} ..., and not by one split each; {read}"
    if any(name in classes for name in wanted) or not classes:
        lacking = [name for name in wanted if name not in classes]
        return f"{len(lacking)} classes of the split have no images, {lacking[0]} among them; {read}" if lacking else ""
    counts = {part: sum(name.startswith(f"{part}/") for name in classes) for part in split}
    short = [
        f"{part} has {counts[part]} classes, not {len(of)}" for part, of in split.items() if counts[part] != len(of)
    ]
    return f"{', '.join(short)}; {read}" if short else ""
