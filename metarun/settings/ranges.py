"""What the annotations on a constructor say of the settings that it is given."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    TypeVar,
    Union,
    Unpack,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from annotated_types import Ge, Gt, Le, Lt
from hydra.utils import get_object

from metarun.core.errors import suggest
from metarun.core.ranges import Ascending, CountsWith, Mark, split_annotation
from metarun.settings.torch_ranges import find_ranges

M = TypeVar("M", bound=Mark)


def find_parameters(target: str) -> dict[str, inspect.Parameter]:
    """Find the parameters of `target` by name; those whose annotations cannot be read here have none."""
    parameters = {}
    for name, parameter in _read_parameters(get_object(target)).items():
        annotation, _ = split_annotation(parameter.annotation)
        if parameter.default is None and annotation is not parameter.empty:
            annotation = annotation | None  # None is allowed where it is the default
        parameters[name] = parameter.replace(annotation=annotation)
    return parameters


def find_conditions(target: str) -> dict[str, CountsWith]:
    """Find the parameters of `target` that count only with certain values of another one."""
    return find_marks(target, CountsWith)


def find_marks(target: str, kind: type[M]) -> dict[str, M]:
    """Find the parameters of `target` that have a mark of the kind, as CountsWith, and the mark of each."""
    marks = {name: split_annotation(one.annotation)[1] for name, one in _read_parameters(get_object(target)).items()}
    return {name: mark for name, found in marks.items() for mark in found if isinstance(mark, kind)}


@cache
def _read_parameters(found: Any) -> Mapping[str, inspect.Parameter]:
    """Read the parameters of a class or function.

    `**settings: Unpack[Keys]` stands for the keys of the TypedDict `Keys`, as it does for type checkers (PEP 692).
    """
    function = found.__init__ if inspect.isclass(found) else found
    of_torch = find_ranges(getattr(found, "__module__", None) or "")
    parameters: dict[str, inspect.Parameter] = {}
    for name, parameter in inspect.signature(found).parameters.items():
        annotation = _read(parameter.annotation, getattr(function, "__globals__", {}))
        if parameter.kind is parameter.VAR_KEYWORD and get_origin(annotation) is Unpack:
            parameters |= _keys(*get_args(annotation))
        else:
            parameters[name] = parameter.replace(annotation=of_torch.get(name, annotation))
    return parameters


def find_annotations(target: str) -> Mapping[str, Any]:
    """Find the annotation of each parameter of `target` that has a readable one."""
    known = {name: parameter.annotation for name, parameter in find_parameters(target).items()}
    return {name: annotation for name, annotation in known.items() if annotation is not inspect.Parameter.empty}


def find_choices(annotation: Any) -> tuple[Any, ...] | None:
    """Return the values that the annotation lists one by one; None if it lists none."""
    if annotation is bool:
        return True, False
    return get_args(annotation) if get_origin(annotation) is Literal else None


def describe_problem(key: str, value: Any, annotation: Any) -> str | None:
    """Describe why `value` is not what the annotation allows; None if it is.

    Numbers, in a range or not (Annotated with Gt, Ge, Lt or Le), text, choices (Literal, bool), lists of them, mappings
    and None are looked at; all else is the constructor's affair.
    """
    options, nullable = _options(annotation)
    if _fits(annotation, value):
        return None
    named = [str(choice) for option in options for choice in find_choices(option) or ()]
    numbers = [words for option in options if (words := _wanted(option))]
    if not numbers:
        named += ["null"] * nullable
        return f"{key}={_shown(value)} is not one of {', '.join(named)}{suggest(_shown(value), named)}"
    return f"{key}={_shown(value)} must be {' or '.join([*numbers, *named, *['null'] * nullable])}" + _aside(
        key, value, options
    )


def _aside(key: str, value: Any, options: Sequence[Any]) -> str:
    """Return a hint about a value that only looks like an allowed one."""
    if value is not None and any(_wanted(option) == "text" for option in options):
        text = str(value).replace("'", "") if isinstance(value, list | Mapping) else _shown(value)
        return f": type '{key}=\"{text}\"'"
    if any(
        isinstance(one, float) and not math.isfinite(one) for one in (value if isinstance(value, list) else [value])
    ):
        return ", and finite"
    beyond = isinstance(value, int) and abs(value) >= LIMIT
    return ", of 64 bits" if beyond else ""


def _options(annotation: Any) -> tuple[list[Any], bool]:
    """Return the alternatives that the annotation allows, and whether None is allowed."""
    if get_origin(annotation) not in (Union, UnionType):
        return [annotation], False
    return [one for one in get_args(annotation) if one is not NoneType], NoneType in get_args(annotation)


def _allows(annotation: Any, value: Any) -> bool:
    if (choices := find_choices(annotation)) is not None:
        return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in choices)
    if (item := _item(annotation)) is not None:
        listed = isinstance(value, Sequence) and not isinstance(value, str) and all(_fits(item, one) for one in value)
        if _ascends(annotation):
            return listed and len(value) == 2 and value[0] <= value[1]
        return listed and len(value) == (_length(annotation) or len(value))
    kind, limits = _read_kind(annotation)
    if kind is str:
        return isinstance(value, str)
    if kind in (int, float):
        return _is_number(value, kind) and all(compare(value, limit) for limit, compare, _ in limits)
    return isinstance(value, Mapping) if _is_mapping(kind) else True


def _fits(annotation: Any, value: Any) -> bool:
    options, nullable = _options(annotation)
    return (value is None and nullable) or any(_allows(option, value) for option in options)


def _is_number(value: Any, kind: type) -> bool:
    """Return whether it is a whole number or a finite one, within 64 bits as torch requires."""
    if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
        return False
    return abs(value) < LIMIT if isinstance(value, int) else math.isfinite(value)


def _is_mapping(kind: Any) -> bool:
    origin = get_origin(kind) or kind
    return is_typeddict(origin) or (inspect.isclass(origin) and issubclass(origin, Mapping))


def _read(annotation: Any, names: dict[str, Any]) -> Any:
    """Return the annotation itself if it is kept as text; some are for type checkers alone."""
    if isinstance(annotation, str):
        with suppress(Exception):  # whatever somebody's own annotation needs
            return eval(annotation, names)
        return inspect.Parameter.empty
    return annotation


def _keys(keys: Any) -> dict[str, inspect.Parameter]:
    """Return the keys of a TypedDict as parameters."""
    parameters = {}
    for name, annotation in get_type_hints(keys, include_extras=True).items():
        default: Any = inspect.Parameter.empty if name in keys.__required_keys__ else None
        if get_origin(annotation) is NotRequired:
            (annotation,), default = get_args(annotation), ...  # some default, of which nothing is known here
        parameters[name] = inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )
    return parameters


def _wanted(annotation: Any) -> str | None:
    """Describe in words what the annotation allows; None if it lists choices, or is not checked."""
    if find_choices(annotation) is not None:
        return None
    if _ascends(annotation):
        return "a range, as [3,50]"
    if (item := _item(annotation)) is not None:
        options, nullable = _options(item)
        each = [_wanted(option) or ", ".join(map(str, find_choices(option) or ["anything"])) for option in options]
        count = f" of {length}" if (length := _length(annotation)) else ""
        return f"a list{count}, each {' or '.join([*each, *['null'] * nullable])}"
    kind, limits = _read_kind(annotation)
    if kind in (int, float):
        words = [f"{word} {limit:g}" for limit, _, word in limits]
        return " ".join(["a whole number" if kind is int else "a number", *[" and ".join(words)] * bool(words)])
    if kind is str:
        return "text"
    return "a group of settings" if _is_mapping(kind) else None


def _read_kind(annotation: Any) -> tuple[Any, list[tuple[float, Callable[[Any, Any], bool], str]]]:
    """Return the type of a value, and the limits of its range: each with how it is compared, and that in words."""
    kind, *marks = get_args(annotation) if get_origin(annotation) is Annotated else [annotation]
    return kind, [
        (getattr(mark, name), compare, word)
        for mark in marks
        for cls, (name, compare, word) in BOUNDS.items()
        if isinstance(mark, cls)
    ]


def _item(annotation: Any) -> Any:
    """Return the annotation of a list's items; None if it is not a list."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    origin = get_origin(annotation)
    return get_args(annotation)[0] if inspect.isclass(origin) and issubclass(origin, Sequence) else None


def _length(annotation: Any) -> int | None:
    """Return the number of values of a list; None for any number."""
    kinds = get_args(annotation)
    return len(kinds) if get_origin(annotation) is tuple and kinds[-1] is not Ellipsis else None


def _ascends(annotation: Any) -> bool:
    """Return whether a list must be the least and the greatest of a range."""
    return get_origin(annotation) is Annotated and any(isinstance(mark, Ascending) for mark in get_args(annotation))


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


LIMIT = 2**63
"""Whole numbers are below it, with either sign."""

BOUNDS = {
    Ge: ("ge", operator.ge, "of at least"),
    Gt: ("gt", operator.gt, "above"),
    Le: ("le", operator.le, "of at most"),
    Lt: ("lt", operator.lt, "below"),
}
"""Of an annotation: its attribute, how it compares, and the words for it."""
