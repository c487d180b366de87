"""Nested settings by dotted key: `{"algo": {"inner_lr": 0.1}}` has a node `algo` and a leaf `algo.inner_lr`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def nodes(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in `tree` with its dotted key; a mapping comes before what is in it."""
    for key, value in tree.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from nodes(value, f"{prefix}{key}.")


def leaves(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """The values in `tree` that are no mappings, by dotted key; an empty mapping has none."""
    return {key: value for key, value in nodes(tree) if not isinstance(value, Mapping)}
