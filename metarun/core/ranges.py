"""Ranges of settings, for the annotations of constructors: the settings are checked against these annotations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Lt

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
ShareBelowOne = Annotated[float, Ge(0), Lt(1)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]


@dataclass(frozen=True)
class Ascending:
    """Stands on a list of two numbers: the least and the greatest of a range."""


@dataclass(frozen=True)
class OnDisk:
    """Stands on a text that may name a file or folder: a run keeps where that is, if a relative path was typed."""


FilePath = Annotated[str, OnDisk()]
