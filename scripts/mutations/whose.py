"""A plugin of coverage for programs that tests start: the lines that one runs are those of the test named in NAME."""

from __future__ import annotations

import os
from types import FrameType
from typing import Any

from coverage import CoveragePlugin

NAME = "MUTATE_TEST"
"""Set in the environment while a test runs. A process that was forked from a program has it anew."""


class Whose(CoveragePlugin):
    """Asked at each call that no context has yet, it gives one to those into the package."""

    def __init__(self, source: str) -> None:
        self.source = source

    def dynamic_context(self, frame: FrameType) -> str | None:
        return os.environ.get(NAME) or None if frame.f_code.co_filename.startswith(self.source) else None


def coverage_init(registry: Any, options: dict[str, str]) -> None:
    """What coverage calls to get its plugins."""
    registry.add_dynamic_context(Whose(options["source"]))
