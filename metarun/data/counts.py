"""How many images the classes of a source have, in numbers and in words."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

log = logging.getLogger(__name__)


def count_images(sizes: Iterable[int]) -> dict[str, int]:
    """Return the least and the most images of a class, and the total, from those of each class; zeros without any."""
    counts = list(sizes)
    return {"least": min(counts, default=0), "most": max(counts, default=0), "total": sum(counts)}


def join_counts(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Return the counts of several sources together."""
    least, most = min(one["least"] for one in counts), max(one["most"] for one in counts)
    return {"least": least, "most": most, "total": sum(one["total"] for one in counts)}


def describe_images(facts: Mapping[str, Any]) -> str | None:
    """Say how many images the classes of a source with these facts have; None if it does not tell."""
    images = facts.get("images")
    return f"{_describe_class(images)} a class, {images['total']:,} in all" if images else None


def warn_if_not_whole(name: str, images: Mapping[str, int], total: int, of_class: int | None = None) -> None:
    """Log a warning if a published set has another number of images here than it was published with.

    Args:
        total: images of the published set.
        of_class: images of each of its classes, if all have as many.
    """
    if of_class and {images["least"], images["most"]} != {of_class}:
        numbers = f"{_describe_class(images)} images a class here, {of_class}"
    elif images["total"] != total:
        numbers = f"{images['total']:,} images here, {total:,}"
    else:
        return
    log.warning("%s has %s in the published set: numbers are not comparable", name, numbers)


def _describe_class(images: Mapping[str, int]) -> str:
    return str(images["least"]) if images["least"] == images["most"] else f"{images['least']} to {images['most']}"
