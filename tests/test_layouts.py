"""Every layout in which people have their images is read right, or refused in words that name what lies there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import layouts_known  # noqa: F401
import layouts_more  # noqa: F401
import layouts_own  # noqa: F401
import pytest
from layouts import LAYOUTS, Layout, short_lists, try_layout


def name(one: Layout) -> str:
    return f"{one.source}-{one.name}"


@pytest.fixture(autouse=True, scope="module")
def short() -> Iterator[None]:
    with short_lists():
        yield


@pytest.mark.parametrize("one", LAYOUTS, ids=name)
def test_a_layout_is_read_right_or_refused_in_words_that_help(
    one: Layout, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = try_layout(one, tmp_path, lambda: caplog.text)
    assert outcome.kind == ("right" if one.truth else "refused"), outcome.said
