"""What the program shows people: text as it stands, facts in two columns, and commands that can be pasted."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from metarun.core.secrets import mask

T = TypeVar("T")

NEUTRAL = "Cc", "Cs", "Zl", "Zp"
"""Unicode categories of characters that steer a terminal, or cannot be written to one."""

BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that turn the order of others round."""


def clean(text: str) -> str:
    """Drop characters that steer a terminal; names of files, classes and settings may have them."""
    if text.isprintable():
        return text
    return "".join(c for c in text if c in "\n\t" or (unicodedata.category(c) not in NEUTRAL and c not in BIDI))


class Screen(Console):
    """Standard output, or standard error, for people.

    It takes text as it stands: square brackets and colons mean nothing, and what would steer the terminal is dropped.

    Args:
        quiet: show nothing.
        stderr: show on standard error.
        width: columns where there is no terminal; None takes rich's.
    """

    def __init__(self, quiet: bool = False, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, quiet=quiet, stderr=stderr)
        if width and not self.is_terminal:
            self.width = width

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=clean(segment.text))

    def say(self, text: str, style: str = "") -> None:
        """Print text that may hold a command: no line is broken but by the terminal itself."""
        self.print(Text(mask(text), style), soft_wrap=True)

    def complain(self, text: str) -> None:
        """Print an error, in red."""
        self.say(f"metarun: {text}", "red")


def track(items: Iterable[T], what: str, total: int) -> Iterable[T]:
    """Yield the items, with a bar of progress on standard error if that is a terminal.

    Args:
        what: what the items are.
        total: how many they are.
    """
    from rich import progress  # only where something takes long

    screen = Screen(stderr=True)
    return progress.track(items, what, total, console=screen, transient=True, disable=not screen.is_terminal)


@dataclass
class Facts:
    """Lines of a label and what is said of it; a command stands in a line of its own, unbroken."""

    rows: list[tuple[str, str, bool]] = field(default_factory=list)

    def add(self, label: str, text: object) -> None:
        self.rows.append((label, mask(str(text)), False))

    def add_command(self, label: str, command: str, remark: str = "") -> None:
        """Add a command; a remark follows it as a shell's comment."""
        self.rows.append((label, f"{mask(command)}   # {remark}" if remark else mask(command), True))

    def show(self, screen: Screen) -> None:
        wide = max(len(label) for label, _, _ in self.rows) + 2
        for label, text, command in self.rows:
            if command:
                screen.print(Text.assemble((f"{label:<{wide}}", "bold"), text), soft_wrap=True)
            else:
                line = Table(show_header=False, box=None, pad_edge=False, padding=0)
                line.add_column(style="bold", width=wide)
                line.add_column(overflow="fold")
                line.add_row(label, Text(text))
                screen.print(line)
