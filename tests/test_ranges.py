"""What each kind of annotation on a constructor allows of a setting, and how a wrong value is told."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, Union

import pytest
import torch
from annotated_types import Ge, Gt, Le, Lt
from omegaconf import DictConfig

from metarun.core.errors import ConfigError
from metarun.core.known_source import know_source
from metarun.core.ranges import Ascending, CountsWith, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from metarun.settings.build import build_learner, build_source
from metarun.settings.check import check
from metarun.settings.ranges import describe_problem, find_annotations, find_choices, find_conditions
from metarun.settings.resolve import resolve

if TYPE_CHECKING:
    from fractions import Fraction

NAN, INFINITE = float("nan"), float("inf")

WHOLE, NUMBER = "must be a whole number", "must be a number"

CASES: dict[str, tuple[Any, list[Any], list[Any], str]] = {
    "positive int": (PositiveInt, [1, 7], [0, -1, 1.0, True, "1", None, [1]], f"{WHOLE} of at least 1"),
    "non-negative int": (NonNegativeInt, [0, 7], [-1, 0.0, False, "", None], f"{WHOLE} of at least 0"),
    "int from 2 on": (Annotated[int, Ge(2)], [2], [1, True], f"{WHOLE} of at least 2"),
    "int above 2": (Annotated[int, Gt(2)], [3], [2, 2.5], f"{WHOLE} above 2"),
    "positive float": (
        PositiveFloat, [0.1, 1, 1e-30, 1e300], [0, 0.0, -0.1, True, "0.1", None, [0.1]], f"{NUMBER} above 0"
    ),
    "non-negative float": (NonNegativeFloat, [0, 0.0, 2.5], [-1e-9, False, None], f"{NUMBER} of at least 0"),
    "a finite number": (NonNegativeFloat, [1e308], [NAN, INFINITE, -INFINITE], f"{NUMBER} of at least 0, and finite"),
    "a number of 64 bits": (
        PositiveInt, [2**63 - 1], [2**63, 10**21, -(2**63)], f"{WHOLE} of at least 1, of 64 bits"
    ),
    "any whole number": (int, [-3, 0], [0.0, "abc", None, True, [1]], WHOLE),
    "any whole number, with a word on it": (Annotated[int, "pixels"], [-3], [0.5, None], WHOLE),
    "any number": (float, [-3, 0.5], ["abc", None, True, [1]], NUMBER),
    "any finite number": (float, [-1e300], [NAN, INFINITE], f"{NUMBER}, and finite"),
    "text": (str, ["", "a"], [None, [], {"a": 1}], "must be text"),
    "text or null": (str | None, ["a", None], [["a"]], "must be text or null"),
    "int or text": (int | str, [-1, "a"], [None, []], f"{WHOLE} or text"),
    "list of words": (list[str], [["a"], []], [None, "a", [1], [None]], "must be a list, each text"),
    "list of choices": (
        Sequence[Literal["a", "b"]], [["a", "b"]], [["c"], "a", None], "must be a list, each a, b"
    ),
    "list of words or null": (Sequence[str | None], [["a", None]], [[1]], "must be a list, each text or null"),
    "two numbers": (
        tuple[PositiveFloat, PositiveFloat], [[1, 2]], [[1], [1, 2, 3], [0, 1], 1],
        "must be a list of 2, each a number above 0",
    ),
    "mapping": (Mapping[str, int], [{}, {"a": 1}], [None, 5, [1], "a"], "must be a group of settings"),
    "a share": (Annotated[float, Ge(0), Lt(1)], [0, 0.9], [1, -0.1], f"{NUMBER} of at least 0 and below 1"),
    "at most three": (Annotated[int, Ge(1), Le(3)], [1, 3], [0, 4], f"{WHOLE} of at least 1 and of at most 3"),
    "float from a half on": (Annotated[float, Ge(0.5)], [0.5, 1], [0.49], f"{NUMBER} of at least 0.5"),
    "float with two bounds": (
        Annotated[float, Ge(0.5), Gt(1)], [1.5], [0.4, 1], f"{NUMBER} of at least 0.5 and above 1"
    ),
    "float and a word of somebody else's": (Annotated[float, "metres", Gt(0)], [1.5], [0], f"{NUMBER} above 0"),
    "int or null": (PositiveInt | None, [1, None], [0, False, "none"], f"{WHOLE} of at least 1 or null"),
    "float or null": (Optional[PositiveFloat], [0.5, None], [0.0, "null"], f"{NUMBER} above 0 or null"),  # noqa: UP045
    "null or float": (None | PositiveFloat, [0.5, None], [0.0], f"{NUMBER} above 0 or null"),
    "int or a word": (
        PositiveInt | Literal["auto"], [3, "auto"], [0, "all", None, True], f"{WHOLE} of at least 1 or auto"
    ),
    "int or a word, the old way": (
        Union[Literal["auto"], PositiveInt], [3, "auto"], [0], f"{WHOLE} of at least 1 or auto"  # noqa: UP007
    ),
    "int or a list": (
        PositiveInt | Sequence[PositiveInt], [3, [3, 4]], [0, [3, 0]],
        f"{WHOLE} of at least 1 or a list, each a whole number of at least 1",
    ),
    "a range": (
        Annotated[Sequence[PositiveInt], Ascending()], [[3, 50], (4, 4)],
        [3, None, [], [3], [50, 3], [0, 3], [1, 2, 3], "12", [True, 2]], "must be a range, as [3,50]",
    ),
    "words": (Literal["mse", "nll"], ["mse", "nll"], ["hinge", "", 0, ["a"]], "is not one of mse, nll"),
    "words or null": (Literal["mse", "nll"] | None, ["mse", None], ["hinge", 0], "is not one of mse, nll, null"),
    "bool": (bool, [True, False], [1, 0, 1.0, "yes", None], "is not one of True, False"),
    "bool or null": (bool | None, [True, None], [0], "is not one of True, False, null"),
    "numbers as choices": (Literal[0, 1], [0, 1], [False, True, 2, None], "is not one of 0, 1"),
    "bools and words as choices": (
        Literal["auto", True, False], ["auto", True, False], [1, 0, "on", None], "is not one of auto, True, False"
    ),
    "list of ints": (
        Sequence[PositiveInt], [[1], [2, 3], (4,), []], [3, "12", None, [0], [1, 0], [1, True], [1.0], {1: 1}],
        "must be a list, each a whole number of at least 1",
    ),
    "list, said as list": (
        list[NonNegativeInt], [[0, 1]], [[-1], 0], "must be a list, each a whole number of at least 0"
    ),
    "list, said as tuple": (tuple[PositiveFloat, ...], [[0.5]], [[0.0], 0.5], "must be a list, each a number above 0"),
    "list or null": (
        Sequence[PositiveFloat] | None, [[0.5], None], [[0]], "must be a list, each a number above 0 or null"
    ),
}  # fmt: skip
"""An annotation, what it allows, what it does not, and what is said of that."""

ANYTHING: list[Any] = [None, True, -1, 0.5, "word", [], [-1], {"a": 1}]

NOT_LOOKED_AT = {
    "any": Any,
    "a class": Path,
    "a class or null": Path | None,
    "function": Callable[[int], int],
}


@pytest.mark.parametrize(("annotation", "fit", "wrong", "said"), CASES.values(), ids=CASES)
def test_a_value_that_the_annotation_does_not_allow_is_told_with_what_it_does(
    annotation: Any, fit: list[Any], wrong: list[Any], said: str
) -> None:
    for value in fit:
        assert describe_problem("algo.x", value, annotation) is None, value
    for value in wrong:
        found = describe_problem("algo.x", value, annotation) or ""
        told, _, how = found.partition(": type ")
        assert told == f"algo.x={'null' if value is None else value} {said}"
        assert bool(how) is (value is not None and "text" in said and "each" not in said)  # it can be quoted


@pytest.mark.parametrize("annotation", NOT_LOOKED_AT.values(), ids=NOT_LOOKED_AT)
def test_what_names_no_range_and_no_choices_is_the_constructors_affair(annotation: Any) -> None:
    assert [describe_problem("algo.x", value, annotation) for value in ANYTHING] == [None] * len(ANYTHING)


def test_the_choice_that_was_meant_is_named() -> None:
    assert describe_problem("algo.distance", "cosin", Literal["euclidean", "cosine"]) == (
        "algo.distance=cosin is not one of euclidean, cosine; did you mean cosine?"
    )
    assert describe_problem("algo.distance", "cosin", Literal["euclidean", "cosine"] | None) == (
        "algo.distance=cosin is not one of euclidean, cosine, null; did you mean cosine?"
    )
    assert (
        describe_problem("algo.strict", "true", bool)
        == "algo.strict=true is not one of True, False; did you mean True?"
    )


def test_choices_are_those_that_the_annotation_names_one_by_one() -> None:
    assert find_choices(bool) == (True, False)
    assert find_choices(Literal["a", 1]) == ("a", 1)
    assert [find_choices(other) for other in (int, PositiveInt, str, Sequence[int], Any)] == [None] * 5


class Network:
    def __init__(
        self, rate: PositiveFloat, folder: Fraction, odd: 1 / 0, plain, steps: PositiveInt | None = None
    ) -> None:
        pass


class Inherits(Network):
    """Has its constructor's annotations from another class."""


def function(steps: PositiveInt, rate: PositiveFloat = 0.5) -> None:
    pass


@functools.wraps(function)
def wrapped(*arguments: Any, **more: Any) -> None:
    function(*arguments, **more)


class Spelled:
    """As where annotations are no words, but what they stand for."""


Spelled.__init__ = lambda self, rate: None
Spelled.__init__.__annotations__ = {"rate": PositiveFloat}


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("Network", {"rate": PositiveFloat, "steps": PositiveInt | None}),
        ("Inherits", {"rate": PositiveFloat, "steps": PositiveInt | None}),
        ("function", {"steps": PositiveInt, "rate": PositiveFloat}),
        ("wrapped", {"steps": PositiveInt, "rate": PositiveFloat}),
        ("Spelled", {"rate": PositiveFloat}),
    ],
)
def test_annotations_are_read_from_a_class_or_a_function_but_for_those_that_cannot_be(
    target: str, found: dict[str, Any]
) -> None:
    """`folder` is of a class that only type checkers know here, `odd` of none, and `plain` has none."""
    assert find_annotations(f"{__name__}.{target}") == found


Settings = Callable[..., DictConfig]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["algo.report_steps=[1,-1]"], "algo.report_steps=[1, -1] must be a list, each a whole number of at least 0"),
        (["algo.inner_lr=true"], "algo.inner_lr=True must be a number above 0"),
        (["algo.inner_clip_norm=0"], "algo.inner_clip_norm=0 must be a number above 0 or null"),
        (["run.val_every=0"], "run.val_every=0 must be a whole number of at least 1 or null"),
        (["run.steps=null"], "run.steps=null must be a whole number of at least 0"),
        (["run.test_tasks=1"], "run.test_tasks=1 must be a whole number of at least 2"),
        (["data=omniglot", "data.rotation=class_"],
         "data.rotation=class_ is not one of none, class, train, random; did you mean class?"),
        (["algo=imaml", "algo.curvature=fisher"], "algo.curvature=fisher is not one of hessian, gauss_newton"),
        (["algo=lstm_learner", "algo.start_rate=1"], "algo.start_rate=1 must be a number above 0 and below 1"),
        (["algo=distill", "algo.alpha=1.5"], "algo.alpha=1.5 must be a number of at least 0 and of at most 1"),
        (["data=sinusoid", "data.phase=[3,1]"], "data.phase=[3, 1] must be a range, as [3,50]"),
        (["optim/schedule=cosine_restarts", "optim.schedule.cycles=0"],
         "optim.schedule.cycles=0 must be a whole number of at least 1"),
    ],
)  # fmt: skip
def test_settings_are_held_against_the_annotations_of_what_they_build(
    full: Settings, words: list[str], said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        check(full(*words))
    assert str(error.value) == said


class Conditional:
    """Settings that count only while another one is above 0, or has one of some values."""

    def __init__(
        self,
        copies: int,
        size: Annotated[PositiveInt, CountsWith("copies")],
        way: Annotated[str, CountsWith("size", (2, 3))],
    ) -> None: ...


def test_what_a_setting_counts_with_is_found_whether_values_are_named_or_all_above_0() -> None:
    found = find_conditions(f"{__name__}.Conditional")
    assert found == {"size": CountsWith("copies"), "way": CountsWith("size", (2, 3))}
    assert [found["size"].counts(value) for value in (0, 0.0, 1, 0.1)] == [False, False, True, True]
    assert [found["way"].counts(value) for value in (0, 1, 2, 3)] == [False, False, True, True]
    said = {name: condition.describe("algo.other") for name, condition in found.items()}
    assert said == {"size": "algo.other above 0", "way": "algo.other=2 or 3"}


@pytest.mark.parametrize(
    ("words", "group", "key"),
    [
        (["algo=meta_curvature"], "algo", "factors"),
        (["algo=imaml"], "algo", "curvature"),
        (["algo=taml"], "algo", "bias"),
        (["algo=maml"], "algo", "engine"),
        (["algo=maml"], "algo", "inner_optimizer"),
        (["algo=protonet"], "algo", "distance"),
        (["algo=tim"], "algo", "distance"),
        (["algo=relationnet"], "algo", "loss"),
        (["algo=protonet", "backbone=conv4"], "backbone", "downsample"),
        (["algo=protonet", "backbone=resnet18"], "backbone", "stem"),
    ],
)
def test_who_constructs_without_settings_is_told_of_a_choice_that_there_is_not(
    settings: Callable[..., DictConfig], words: list[str], group: str, key: str
) -> None:
    resolved = resolve(settings(*words), warn=False)
    source = know_source(build_source(resolved, torch.device("cpu")))
    node = getattr(resolved, group)
    assert key in node
    wrong = replace(resolved, **{group: {**node, key: "nonsense"}})
    with pytest.raises((ValueError, ConfigError), match=rf"{group}\.{key}=nonsense is not one of "):
        build_learner(wrong, source)


def test_a_value_that_is_wrong_only_where_it_is_referred_to_is_told(settings: Callable[..., DictConfig]) -> None:
    """Seed 0 is one; steps between validations are 1 at least."""
    config = settings("algo=protonet", "seed=0")
    config.run.val_every = "${seed}"
    with pytest.raises(ConfigError, match=r"^run\.val_every.*must be a whole number of at least 1"):
        check(config)
    config.seed = 3
    check(config)
