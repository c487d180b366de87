"""Images that are there twice: the second copy of a whole set is left out, others are told."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence

from metarun.data.files.image_file import ImageFile

log = logging.getLogger(__name__)

CONTAINER = re.compile(r".*(?=[/:])", re.DOTALL)
"""The folder or the packed file that a path lies in."""


def find_second_copies(files: Mapping[str, Sequence[ImageFile]], digests: Sequence[bytes], name: str) -> set[int]:
    """Find the rows of images that lie a second time in another folder, as images of the same class.

    So a set looks that was unpacked twice, or lies sorted by split beside the original. Copies in one folder, and
    images in several classes, belong to the set as it is: they are told in a warning.

    Args:
        files: the images of each class.
        digests: a hash of the content of each image, class after class.
        name: what messages call the images.
    """
    second: dict[int, str] = {}
    kept: dict[bytes, tuple[str, str]] = {}  # the class and the path of the first image with this content
    within, between = [], []
    rows = ((label, file.path) for label, group in files.items() for file in group)
    for row, (digest, (label, path)) in enumerate(zip(digests, rows, strict=True)):
        first_label, first = kept.setdefault(digest, (label, path))
        if first is path:
            continue
        if first_label != label:
            between.append(f"{path} of {first}")
        elif path == first or _container(path) != _container(first):
            second[row] = f"{path} of {first}"
        else:
            within.append(f"{path} of {first}")
    if second:
        log.warning(
            "%d of the %d images of %s are copies of images in other folders, and left out: %s among them",
            *(len(second), len(digests), name, next(iter(second.values()))),
        )
    if within:
        log.warning(
            "%d of the %d images of %s are copies of others in the same folder, %s among them: tasks in which one is "
            "to be known by the other are easier than they look",
            *(len(within), len(digests), name, within[0]),
        )
    if between:
        log.warning(
            "%d of the %d images of %s stand in two classes, %s among them",
            *(len(between), len(digests), name, between[0]),
        )
    return set(second)


def _container(path: str) -> str:
    found = CONTAINER.match(path)
    return found[0] if found else ""
