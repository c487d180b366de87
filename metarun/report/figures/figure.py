"""A figure with what is said of it."""

from __future__ import annotations

from dataclasses import dataclass

import altair as alt


@dataclass(frozen=True)
class Figure:
    """A figure with its title and notes.

    Attributes:
        name: name for its file.
        title: title for the reader.
        view: the drawing itself.
        said: notes for the reader.
        form: `square`, `wide` if the page has the room, or empty.
    """

    name: str
    title: str
    view: alt.LayerChart
    said: tuple[str, ...]
    form: str = ""
