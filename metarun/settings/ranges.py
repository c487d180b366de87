"""What the annotations on a constructor say of the settings that it is given."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NotRequired, Union, Unpack, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from hydra.utils import get_object

from metarun.core.errors import suggest
from metarun.core.ranges import Ascending


def parameters_of(target: str) -> dict[str, inspect.Parameter]:
    """The parameters of `target` by name; without annotation those whose own cannot be read here.

    `**settings: Unpack[Keys]` stands for the keys of the TypedDict `Keys`, as it does for type checkers (PEP 692).
    """
    found = get_object(target)
    function = found.__init__ if inspect.isclass(found) else found
    parameters: dict[str, inspect.Parameter] = {}
    for name, parameter in inspect.signature(found).parameters.items():
        annotation = _read(parameter.annotation, getattr(function, "__globals__", {}))
        if parameter.kind is parameter.VAR_KEYWORD and get_origin(annotation) is Unpack:
            parameters |= _keys(*get_args(annotation))
        else:
            parameters[name] = parameter.replace(annotation=annotation)
    return parameters


def annotations_of(target: str) -> Mapping[str, Any]:
    """The annotation of each parameter of `target` that has one to be read here."""
    known = {name: parameter.annotation for name, parameter in parameters_of(target).items()}
    return {name: annotation for name, annotation in known.items() if annotation is not inspect.Parameter.empty}


def choices_of(annotation: Any) -> tuple[Any, ...] | None:
    """The values that the annotation names one by one; None where it names none."""
    if annotation is bool:
        return True, False
    return get_args(annotation) if get_origin(annotation) is Literal else None


def problem(key: str, value: Any, annotation: Any) -> str | None:
    """What keeps `value` from being what the annotation says, if anything.

    Numbers in a range (Annotated with Gt, Ge, Lt or Le), choices (Literal, bool), lists of them, and None are looked
    at; all else is the constructor's affair.
    """
    options, nullable = _options(annotation)
    if (value is None and nullable) or any(_allows(option, value) for option in options):
        return None
    named = [str(choice) for option in options for choice in choices_of(option) or ()]
    numbers = [words for option in options if (words := _wanted(option))]
    if not numbers:
        named += ["null"] * nullable
        return f"{key}={_shown(value)} is not one of {', '.join(named)}{suggest(_shown(value), named)}"
    return f"{key}={_shown(value)} must be {' or '.join([*numbers, *named, *['null'] * nullable])}"


def _options(annotation: Any) -> tuple[list[Any], bool]:
    """What the annotation allows, one by one, and whether None is allowed too."""
    if get_origin(annotation) not in (Union, UnionType):
        return [annotation], False
    return [one for one in get_args(annotation) if one is not NoneType], NoneType in get_args(annotation)


def _allows(annotation: Any, value: Any) -> bool:
    if (choices := choices_of(annotation)) is not None:
        return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in choices)
    if _wanted(annotation) is None:
        return True
    if (item := _item(annotation)) is not None:
        listed = isinstance(value, Sequence) and not isinstance(value, str) and all(_allows(item, one) for one in value)
        return listed and (not _ascends(annotation) or (len(value) == 2 and value[0] <= value[1]))
    kind, *bounds = get_args(annotation)
    of_kind = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    return of_kind and all(
        compare(value, getattr(bound, name))
        for bound in bounds
        for cls, (name, compare, _) in BOUNDS.items()
        if isinstance(bound, cls)
    )


def _read(annotation: Any, names: dict[str, Any]) -> Any:
    """The annotation itself, where it is kept as text; some are for type checkers alone."""
    if isinstance(annotation, str):
        with suppress(Exception):  # whatever somebody's own annotation needs
            return eval(annotation, names)
        return inspect.Parameter.empty
    return annotation


def _keys(keys: Any) -> dict[str, inspect.Parameter]:
    """The keys of a TypedDict as parameters."""
    parameters = {}
    for name, annotation in get_type_hints(keys, include_extras=True).items():
        default = inspect.Parameter.empty if name in keys.__required_keys__ else None
        if get_origin(annotation) is NotRequired:
            (annotation,), default = get_args(annotation), None
        parameters[name] = inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )
    return parameters


def _wanted(annotation: Any) -> str | None:
    """The numbers of a range, or a list of them, in words; None where the annotation is of something else."""
    if _ascends(annotation):
        return "a range, as [3,50]"
    if (item := _item(annotation)) is not None:
        return f"a list, each {wanted}" if (wanted := _wanted(item)) else None
    if get_origin(annotation) is not Annotated:
        return None
    kind, *bounds = get_args(annotation)
    words = [
        f"{word} {getattr(bound, name):g}"
        for bound in bounds
        for cls, (name, _, word) in BOUNDS.items()
        if isinstance(bound, cls)
    ]
    return f"{'a whole number' if kind is int else 'a number'} {' and '.join(words)}" if words else None


def _item(annotation: Any) -> Any:
    """What a list consists of; None where the annotation is of no list."""
    if _ascends(annotation):
        annotation = get_args(annotation)[0]
    origin = get_origin(annotation)
    return get_args(annotation)[0] if inspect.isclass(origin) and issubclass(origin, Sequence) else None


def _ascends(annotation: Any) -> bool:
    """Whether a list is the least and the greatest of a range."""
    return get_origin(annotation) is Annotated and any(isinstance(mark, Ascending) for mark in get_args(annotation))


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


BOUNDS = {
    Ge: ("ge", operator.ge, "of at least"),
    Gt: ("gt", operator.gt, "above"),
    Le: ("le", operator.le, "of at most"),
    Lt: ("lt", operator.lt, "below"),
}
"""Of an annotation: its attribute, how it compares, and the words for it."""
