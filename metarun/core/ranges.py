"""Ranges of settings, for the annotations of constructors: the settings are checked against these annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
ShareBelowOne = Annotated[float, Ge(0), Lt(1)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]


@dataclass(frozen=True)
class Ascending:
    """Stands on a list of two numbers: the least and the greatest of a range."""


Interval = Annotated[Sequence[float], Ascending()]


@dataclass(frozen=True)
class OnDisk:
    """Stands on a text that may name a file or folder: a run keeps where that is, if a relative path was typed."""


@dataclass(frozen=True)
class CountsWith:
    """Stands on a setting that has an effect only with certain values of another one of the same constructor.

    Attributes:
        other: the name of that setting.
        values: the values; none for all above 0.
    """

    other: str
    values: tuple[Any, ...] = ()

    def counts(self, value: Any) -> bool:
        """Return whether the setting has an effect with this value of the other one."""
        return value in self.values if self.values else bool(value)

    def describe(self, key: str) -> str:
        """Describe in words what the other setting, whose whole name is `key`, must be."""
        return f"{key}={' or '.join(map(show_value, self.values))}" if self.values else f"{key} above 0"


@dataclass(frozen=True)
class CountsBeside:
    """Stands on a setting that has an effect only beside certain choices of another group.

    Attributes:
        group: `data` or `run`.
        values: kinds of tasks, or names of runs.
    """

    group: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class UpTo:
    """Stands on a setting that does no more above the number of something than at it, as parts of what has fewer.

    Attributes:
        number: of what: one of settings/beyond.py's COUNTS.
    """

    number: str


Mark = CountsWith | CountsBeside | UpTo
"""What an annotation says of a setting beside its value."""


def check_choice(key: str, value: Any, choices: Any) -> None:
    """Raise ValueError if `value` is none of those that `choices`, a Literal, lists.

    Settings are checked before anything is constructed; this is for people who construct by themselves.
    """
    if value not in get_args(choices):
        raise ValueError(f"{key}={show_value(value)} is not one of {', '.join(map(show_value, get_args(choices)))}")


def show_value(value: Any) -> str:
    """Return a value as it is typed."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def split_annotation(annotation: Any) -> tuple[Any, tuple[Mark, ...]]:
    """Split an annotation into what it says of the value alone, and of what the setting counts with."""
    if get_origin(annotation) is not Annotated:
        return annotation, ()
    kind, *marks = get_args(annotation)
    found = tuple(mark for mark in marks if isinstance(mark, Mark))
    kept = tuple(mark for mark in marks if not isinstance(mark, Mark))
    return (Annotated[(kind, *kept)] if kept else kind), found


BY_SIZE = "by_size"
"""Shots of a class that grow with its size."""

FilePath = Annotated[str, OnDisk()]
