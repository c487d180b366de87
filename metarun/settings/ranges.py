"""What the annotations on a constructor say of the settings that it is given."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt
from hydra.utils import get_object

from metarun.core.errors import nearest


def annotations_of(target: str) -> Mapping[str, Any]:
    """The annotation of each parameter of `target`; of those that can be read here, for some are for type checkers."""
    found = get_object(target)
    function = found.__init__ if inspect.isclass(found) else found
    readable = {}
    for name, parameter in inspect.signature(found).parameters.items():
        annotation = parameter.annotation
        if isinstance(annotation, str):
            with suppress(Exception):  # whatever somebody's own annotation needs
                readable[name] = eval(annotation, getattr(function, "__globals__", {}))
        elif annotation is not inspect.Parameter.empty:
            readable[name] = annotation
    return readable


def choices_of(annotation: Any) -> tuple[Any, ...] | None:
    """The values that the annotation names one by one; None where it names none."""
    if annotation is bool:
        return True, False
    return get_args(annotation) if get_origin(annotation) is Literal else None


def problem(key: str, value: Any, annotation: Any) -> str | None:
    """What keeps `value` from being what the annotation says, if anything.

    Numbers in a range (Annotated with Gt or Ge), choices (Literal, bool), lists of them, and None are looked at; all
    else is the constructor's affair.
    """
    if get_origin(annotation) in (Union, UnionType):
        options = [option for option in get_args(annotation) if option is not NoneType]
        problems = [problem(key, value, option) for option in options]
        nullable = NoneType in get_args(annotation)
        if (value is None and nullable) or None in problems:
            return None
        return f"{problems[0]}{' or null' if nullable else ''}"
    if (choices := choices_of(annotation)) is not None:
        if any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in choices):
            return None
        words = [str(choice) for choice in choices]
        return f"{key}={value} is not one of {', '.join(words)}{nearest(str(value), words)}"
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    if inspect.isclass(get_origin(annotation)) and issubclass(get_origin(annotation), Sequence):
        (item, *_) = get_args(annotation)
        if _wanted(item) is None or (listed and all(problem(key, one, item) is None for one in value)):
            return None
        return f"{key}={value} must be a list, each {_wanted(item)}"
    wanted = _wanted(annotation)
    if wanted is None or _fits(value, annotation):
        return None
    return f"{key}={value} must be {wanted}"


def _wanted(annotation: Any) -> str | None:
    """The numbers of a range in words; None where the annotation is of something else."""
    if get_origin(annotation) is not Annotated:
        return None
    kind, *bounds = get_args(annotation)
    for bound in bounds:
        if isinstance(bound, (Ge, Gt)):
            number = "a whole number" if kind is int else "a number"
            least = bound.ge if isinstance(bound, Ge) else bound.gt
            return f"{number} {'of at least' if isinstance(bound, Ge) else 'above'} {least:g}"
    return None


def _fits(value: Any, annotation: Any) -> bool:
    kind, *bounds = get_args(annotation)
    of_kind = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    return of_kind and all(
        value >= bound.ge if isinstance(bound, Ge) else value > bound.gt
        for bound in bounds
        if isinstance(bound, (Ge, Gt))
    )
