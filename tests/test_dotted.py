"""Nested settings by dotted key."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from metarun.core.dotted import leaves, nodes

TREE: dict[str, Any] = {
    "seed": 0,
    "algo": {"inner_lr": 0.1, "inner": {"steps": [1, {"a": 2}], "none": None}},
    "optims": {},
    "word": MappingProxyType({"two": 2}),
    "last": {3: "three"},
}


def test_leaves_are_found_at_every_depth_in_their_order_and_lists_are_taken_whole() -> None:
    assert list(leaves(TREE).items()) == [
        ("seed", 0),
        ("algo.inner_lr", 0.1),
        ("algo.inner.steps", [1, {"a": 2}]),
        ("algo.inner.none", None),
        ("word.two", 2),
        ("last.3", "three"),
    ]


def test_nodes_are_the_leaves_and_what_they_are_in_which_comes_first() -> None:
    keys = [key for key, _ in nodes(TREE)]
    assert keys[:5] == ["seed", "algo", "algo.inner_lr", "algo.inner", "algo.inner.steps"]
    assert set(keys) - leaves(TREE).keys() == {"algo", "algo.inner", "optims", "word", "last"}
