"""Names of classes as the tokens of CLIP's texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metarun.core.episodes import Floats

NAMES = "names"
"""Descriptions that are the names of the classes."""


def tokenize_names(names: Sequence[str], templates: Sequence[str]) -> dict[str, Floats]:
    """Return the tokens of each class's texts by its name [P, 77], whole numbers: its name in each of P templates.

    `oak_tree` and `plants/oak tree` are both oak tree.

    Args:
        templates: texts with a {} where the name comes, as "a photo of a {}.".
    Raises: ValueError if open_clip, which has the tokens, is not installed, or a template has no place for a name.
    """
    try:
        from open_clip import SimpleTokenizer
    except ImportError as error:
        raise ValueError("names of classes as texts need open_clip: uv sync --extra open-clip") from error
    if not templates or any("{}" not in template for template in templates):
        raise ValueError(f"data.templates={list(templates)} must be texts with a {{}} where a name of a class comes")
    tokenizer = SimpleTokenizer()
    plain = {name: name.rpartition("/")[2].replace("_", " ").strip() for name in names}
    return {
        name: tokenizer([template.replace("{}", said) for template in templates]).numpy().astype(np.float64)
        for name, said in plain.items()
    }
