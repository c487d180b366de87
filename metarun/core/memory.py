"""Too little memory: seen in an error or foreseen, with the typed numbers that may have asked for it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from metarun.core.ranges import BY_SIZE

WORDS = re.compile(r"allocate memory|not enough memory|out of memory|overflowed|integer multiplication overflow", re.I)
"""What torch says in a RuntimeError."""

SIDES = "k_shot", "n_query"
"""Settings that count the inputs of a task, of each class if there are any."""

NOT_SIZES = re.compile(r"(^|[._])(seed|steps|.*_every|lr)$")
"""Keys whose numbers ask for no memory."""


def check_room(data: Mapping[str, Any], input_shape: Sequence[int], tasks: int) -> None:
    """Raise MemoryError if the inputs of so many tasks, drawn together, do not fit into this machine's memory.

    Args:
        data: the settings of the group data.
        input_shape: of one input, of 4 bytes a number.
    """
    sizes = data, {**data, **(data.get("train") or {})}
    inputs = max(
        max(_find_most(one.get("n_way", 0)), 1) * sum(_find_most(one.get(side, 0)) for side in SIDES) for one in sizes
    )
    needed = 4 * math.prod(input_shape) * inputs * tasks
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise MemoryError(f"{tasks} tasks drawn together take {needed / 1e9:,.0f} GB of {there / 1e9:,.0f} GB")


def _find_most(count: Any) -> int:
    """Return the largest of a range [least, most], or the number; 1 for shots that classes decide."""
    if count == BY_SIZE:
        return 1
    return max(map(int, count)) if isinstance(count, Sequence) else int(count or 0)


def describe_lack_of_memory(error: BaseException, typed: Sequence[str]) -> str | None:
    """Describe that memory was too small, with the largest of the `typed` settings; None for another error."""
    if not (isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and WORDS.search(str(error)))):
        return None
    sizes = {word: _find_number(word) for word in typed}
    most = max(sizes.values(), default=0.0)
    blamed = " or ".join(word for word in sizes if sizes[word] > max(1, most / 100))
    said = " ".join(str(error).split())[:160]
    return f"there is too little memory: make {blamed or 'the network or run.meta_batch_size'} smaller ({said})"


def _find_number(word: str) -> float:
    """Find the largest number of a setting; 0 without one, or if it asks for no memory."""
    key, _, value = word.partition("=")
    numbers = re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e\+?\d+)?(?![\w.])", value.lower())
    return 0.0 if NOT_SIZES.search(key) else max(map(float, numbers), default=0.0)
