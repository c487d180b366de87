"""Which files the source of some settings would read, without opening it or downloading anything."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarun.settings.resolve import find_target


def find_files(data: Mapping[str, Any]) -> list[Path] | None:
    """Find the files or folders of the source that `data` describes; None for a source that reads none.

    A source that reads files has a static method `find_files`, whose parameters are settings of the source.
    """
    find = getattr(find_target(data), "find_files", None)
    if find is None:
        return None
    found: list[Path] = find(**{key: data[key] for key in inspect.signature(find).parameters})
    return found
