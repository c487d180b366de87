"""metarun/README.md names the rooms and files that there are."""

from __future__ import annotations

import re
from pathlib import Path

from test_layers import ALLOWED

PACKAGE = Path(__file__).parents[1] / "metarun"
TEXT = (PACKAGE / "README.md").read_text().partition("## Your own algorithm")[0]


def test_every_room_has_a_line() -> None:
    rows = set(re.findall(r"^\| `([\w.]+)/?`", TEXT, re.M))
    assert rows == {room.partition("/")[0] for room in ALLOWED} - {"__main__.py"}


def test_every_file_it_names_is_there() -> None:
    named = {name for name in re.findall(r"\b(?:[a-z_]+/)*[a-z_]+\.py\b", TEXT) if name != "tests/test_layers.py"}
    assert len(named) > 8
    for name in named:
        assert (PACKAGE / name).is_file() or list(PACKAGE.rglob(name)), name


NAMES = ("meta_loss", "evaluate", "adapt", "predict", "compare", "build_parts", "build_run", "execute", "resolve")


def test_every_method_and_function_it_names_is_there() -> None:
    code = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    for name in NAMES:
        assert name in TEXT
        assert f"def {name}(" in code
