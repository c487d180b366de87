"""The images of a set: decoded once, into the cache."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from metarun.data.files.cache import create_cache_file, open_or_write
from metarun.data.files.copies import find_second_copies
from metarun.data.files.decode import Scale, fill
from metarun.data.files.image_file import ImageFile
from metarun.data.images import ImageClasses

log = logging.getLogger(__name__)


def load_images(
    cache: Path, name: str, stamp: str, files: Callable[[], Mapping[str, Sequence[ImageFile]]], scale: Scale
) -> ImageClasses:
    """Load all images, with classes in order of name, from the cache if no file has changed.

    Args:
        cache: the cache folder.
        name: a name for the images.
        stamp: a text that changes when the files do.
        files: lists the files of each class; called only if the images are not in the cache.
        scale: how a file becomes pixels.
    Raises: ValueError that names the files that cannot be read.
    """
    key = hashlib.sha256(repr((3, stamp, scale)).encode()).hexdigest()
    return open_or_write(cache.expanduser(), name, key, lambda path: _decode(path, name, files(), scale))


def _decode(path: Path, name: str, files: Mapping[str, Sequence[ImageFile]], scale: Scale) -> None:
    files = {label: files[label] for label in sorted(files)}
    ordered = [file for group in files.values() for file in group]
    log.info("reading the %d images of %s, once", len(ordered), name)
    starts = np.cumsum([0, *map(len, files.values())], dtype=np.int64)
    shape = (scale.channels, scale.size, scale.size)
    pixels = create_cache_file(path, list(files), starts, (len(ordered), *shape))
    digests = [b""] * len(ordered)
    if fill(pixels, ordered, scale, name, digests) is None and scale.range is not None:
        log.warning("data.range has no effect: none of the images of %s is gray of more than 8 bits", name)
    if second := find_second_copies(files, digests, name):
        kept = np.array([row not in second for row in range(len(ordered))])
        starts = np.append(0, np.cumsum(kept))[starts]
        path.unlink()  # its pixels stay mapped
        fewer = create_cache_file(path, list(files), starts, (int(starts[-1]), *shape))
        for new, row in enumerate(np.flatnonzero(kept)):
            fewer[new] = pixels[row]
        pixels = fewer
    pixels.flush()
